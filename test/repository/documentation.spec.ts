import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { VARIABLES } from '../../src/app/environment-variables.js';
import { FAULTS } from '../../src/database/faults.js';
import * as api from '../../src/index.js';

const reference = readFileSync('docs/reference.md', 'utf8');
const { files } = JSON.parse(readFileSync('package.json', 'utf8')) as { files: string[] };
/** What comes with the package beside the code. */
const packed = [
  'README.md',
  ...files,
  ...readdirSync('docs', { recursive: true, encoding: 'utf8' }).map((file) => `docs/${file}`),
];
const documents = packed.filter((file) => file.endsWith('.md'));
const sources = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => readFileSync(path.join('src', file), 'utf8'));

it('the reference’s table of settings is the code’s', () => {
  const rows = [...reference.matchAll(/^\| `([A-Z_]+)` \| (.*?) \| (.*?) \| (.*?) \|$/gm)].map(
    ([, ...cells]) => cells,
  );
  const expected = Object.entries(VARIABLES).map(([name, { default: value, accepted, meaning }]) => [
    name,
    value === undefined ? '–' : `\`${String(value)}\``,
    accepted,
    meaning,
  ]);
  expect(rows).toEqual(expected);
});

it('the reference names every type of error, and no other', () => {
  const inCode = sources.flatMap((text) =>
    [...text.matchAll(/type: '([a-z-]+)',\s+status:/g)].map(([, type]) => type!),
  );
  const inReference = [...reference.matchAll(/^\| `([a-z-]+)` \| \d{3} \|/gm)].map(([, type]) => type!);
  expect(inReference.sort()).toEqual([...new Set([...inCode, 'internal-error'])].sort());
});

it('the document of transactions has the code’s table of whose fault a failure is', () => {
  const document = readFileSync('docs/transactions.md', 'utf8');
  const rows = [...document.matchAll(/^\| ((?:`\w+` ?)+)\| (\w+): /gm)].map(([, states, fault]) => ({
    states: [...states!.matchAll(/`(\w+)`/g)].map(([, state]) => state!),
    fault,
  }));
  expect(rows).toEqual(FAULTS);
});

it('one place of the code promises that nothing was changed', () => {
  expect(sources.flatMap((text) => text.match(/nothing was changed/gi) ?? [])).toHaveLength(1);
});

it('the reference names every route and every topic', () => {
  for (const route of ['POST /people', 'POST /people/bulk', 'GET /people/:id', 'GET /people?name=', 'PATCH /people/:id', 'DELETE /people/:id', '/health/live', '/health/ready', '/metrics', '/docs', '/docs-json']) expect(reference).toContain(route); // prettier-ignore
  const topics = sources.flatMap((text) =>
    [...text.matchAll(/@MessagePattern\('([\w.-]+)'[,)]/g)].map(([, topic]) => topic!),
  );
  const names = new Set(topics);
  expect(names.size).toBe(7);
  for (const topic of names) expect(reference).toContain(`\`${topic}\``);
});

it('the page of traps is what stands above the tests', () => {
  expect(() => execFileSync(process.execPath, ['.ci/traps.mjs'], { stdio: 'pipe' })).not.toThrow();
  expect(readFileSync('docs/traps.md', 'utf8').match(/^\| .* \|$/gm)!.length).toBeGreaterThan(70);
});

it('every link of a document leads to a file that is packed with it, and to a heading there', () => {
  const headingsOf = (document: string) =>
    [...readFileSync(document, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replace(/[^\w -]/g, '')
        .replaceAll(' ', '-'),
    );
  const broken = documents.flatMap((document) =>
    [...readFileSync(document, 'utf8').matchAll(/\]\(([^):\s]+)\)/g)]
      .map(([, link]) => link!)
      .filter((link) => {
        const [file, heading] = link.split('#');
        const target = file ? path.join(path.dirname(document), file) : document;
        return !packed.includes(target) || (heading && !headingsOf(target).includes(heading));
      })
      .map((link) => `${document}: ${link}`),
  );
  expect(broken).toEqual([]);
});

it('every file and folder of src that a document names is there', () => {
  const folders = readdirSync('src', { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const named = new RegExp(`\`((?:${folders.map(({ name }) => name).join('|')})/[\\w./-]+)\``, 'g');
  const isThere = (name: string) => existsSync(path.join('src', name)) || existsSync(`src/${name}.ts`);
  const wrong = documents.flatMap((document) =>
    [...readFileSync(document, 'utf8').matchAll(named)]
      .filter(([, name]) => !isThere(name!))
      .map(([, name]) => `${document}: ${name}`),
  );
  expect(wrong).toEqual([]);
});

it('every exported class and function of the package has a docstring', () => {
  const migrations = readFileSync('migrations/index.ts', 'utf8');
  const missing = Object.keys(api).filter((name) => {
    const declaration = new RegExp(
      String.raw`\*/\n(?:@[^\n]*\n(?:[^\n]*\n)*?)?(?:// [^\n]*\n)?export (?:abstract )?(?:class|function|async function|const) ${name}\b`,
    );
    return ![...sources, migrations].some((text) => declaration.test(text));
  });
  expect(missing).toEqual([]);
});
