import { ESLint } from 'eslint';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** From left to right: a folder may import any folder to its right. */
const FOLDERS = ['app', 'operations', 'people', 'messaging', 'transactions', 'database', 'errors'];
const SOURCE = path.resolve('src');

const files = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' }).filter((file) =>
  file.endsWith('.ts'),
);
const importsOf = (file: string) =>
  [
    ...readFileSync(path.join(SOURCE, file), 'utf8').matchAll(
      /^(?:import|export)\s(?:[^;]*?\sfrom\s+)?'(\.[^']+)'/gm,
    ),
  ].map(([, specifier]) => path.join(path.dirname(file), specifier!).replace(/\.js$/, '.ts'));
const graph = new Map(files.map((file) => [file, importsOf(file)]));

it('every folder of src is one that ARCHITECTURE.md names', () => {
  const folders = readdirSync(SOURCE, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const architecture = readFileSync('ARCHITECTURE.md', 'utf8');
  expect(folders.map(({ name }) => name).sort()).toEqual([...FOLDERS, 'dev'].sort());
  for (const { name } of folders) expect(architecture).toContain(`${name}/`);
  expect(architecture).toContain(`main → ${FOLDERS.join(' → ')}`);
});

it('no file is part of an import cycle', () => {
  const done = new Set<string>();
  const visit = (file: string, trail: string[]): void => {
    if (trail.includes(file))
      throw new Error(`cycle: ${[...trail.slice(trail.indexOf(file)), file].join(' → ')}`);
    if (done.has(file)) return;
    for (const next of graph.get(file) ?? []) visit(next, [...trail, file]);
    done.add(file);
  };
  for (const file of files) visit(file, []);
  expect(done.size).toBeGreaterThanOrEqual(files.length);
});

it('every import within src goes to the right, and only app imports dev', () => {
  const wrong = [...graph].flatMap(([file, imports]) =>
    imports
      .filter((target) => !target.startsWith('..') && !mayImport(file, target))
      .map((target) => `${file} → ${target}`),
  );
  expect(wrong).toEqual([]);
});

function mayImport(file: string, target: string): boolean {
  const [from, to] = [file, target].map((each) => (each.includes(path.sep) ? each.split(path.sep)[0]! : ''));
  if (from === '' || from === to) return true;
  if (to === 'dev') return from === 'app';
  if (from === 'operations' && to === 'people') return false;
  return FOLDERS.indexOf(to!) > FOLDERS.indexOf(from!);
}

it.each([
  ['kafkajs', ['messaging/kafkajs/', 'dev/']],
  ['@platformatic/kafka', ['messaging/platformatic/']],
])('only its driver imports %s, and nobody the driver before it is chosen', (library, folders) => {
  const isOutside = (file: string) => !folders.some((folder) => file.startsWith(folder));
  const outside = files.filter(isOutside);
  const importing = (file: string) =>
    readFileSync(path.join(SOURCE, file), 'utf8').includes(`from '${library}'`);
  expect(outside.filter(importing)).toEqual([]);
  expect(outside.filter((file) => graph.get(file)!.some((target) => target.startsWith(folders[0]!)))).toEqual(
    [],
  );
});

describe('the lint rule', () => {
  it.each([
    ['src/transactions/x.ts', '../people/people.service.js'],
    ['src/errors/x.ts', '../database/pooled-client.js'],
    ['src/people/x.ts', '../app/environment.js'],
    ['src/operations/x.ts', '../people/person.entity.js'],
    ['src/messaging/x.ts', '../dev/embedded-kafka.js'],
    ['src/dev/x.ts', '../errors/application-error.js'],
    ['src/people/x.ts', '../index.js'],
  ])('fails %s that imports %s', async (filePath, specifier) => {
    expect(await lint(filePath, `import '${specifier}';\n`)).toContain('no-restricted-imports');
  });

  it.each([
    ['src/people/x.ts', '../transactions/transaction-runner.js'],
    ['src/app/x.ts', '../dev/embedded-kafka.js'],
    ['src/app/x.ts', '../../migrations/index.js'],
  ])('lets %s import %s', async (filePath, specifier) => {
    expect(await lint(filePath, `import '${specifier}';\n`)).not.toContain('no-restricted-imports');
  });

  it('lets nobody but app/environment.ts read the environment', async () => {
    expect(await lint('src/people/x.ts', 'export const x = process.env.X;\n')).toContain(
      'no-restricted-properties',
    );
  });
});

async function lint(filePath: string, text: string): Promise<(string | null)[]> {
  // Only the plain rules: those that need types need a file that exists.
  const eslint = new ESLint({
    overrideConfig: {
      files: ['**/*.ts'],
      languageOptions: { parserOptions: { projectService: false } },
      rules: typeCheckedOff,
    },
  });
  const [result] = await eslint.lintText(text, { filePath });
  return result!.messages.map(({ ruleId }) => ruleId);
}

const { default: tseslint } = await import('typescript-eslint');
const typeCheckedOff = tseslint.configs.disableTypeChecked.rules!;
