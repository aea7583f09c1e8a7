import { ESLint } from 'eslint';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** From left to right: a folder may import any folder to its right. */
const { FOLDERS } = (await import(path.resolve('eslint.config.mjs'))) as { FOLDERS: readonly string[] };
/** The same of the rooms in them; what stands beside the rooms is what all of them know. */
const ROOMS: Record<string, string[]> = {
  app: ['http', 'migrating', 'commands', 'init'],
  operations: ['console', 'dead-letters', 'health', 'metrics', 'logs'],
  people: ['http', 'messages', 'sharing', 'importing', 'table'],
  messaging: ['kafka', 'replaying', 'consuming', 'outbox', 'dead-letters', 'inbox', 'telemetry', 'records'],
  'messaging/kafka': ['kafkajs', 'platformatic', 'client', 'protocol', 'replies'],
  transactions: ['setup', 'repositories', 'sharing', 'unit', 'session'],
  database: ['hosts', 'pg', 'versions'],
};
const LINES_OF_A_HEADER = 5;
const FILES_OF_A_FOLDER = 15;
const LINES_OF_A_FILE = 250;
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

it('every import between the rooms of a folder goes to the right', () => {
  const wrong = Object.entries(ROOMS).flatMap(([folder, rooms]) => {
    const roomOf = (file: string) => {
      const [room, ...rest] = path.relative(folder, file).split(path.sep);
      return rest.length > 0 && room !== '..' ? room! : undefined;
    };
    return [...graph].flatMap(([file, imports]) =>
      imports
        .map((target) => [roomOf(file), roomOf(target), target] as const)
        .filter(([from, to]) => from && to && rooms.indexOf(from) > rooms.indexOf(to))
        .map(([, , target]) => `${file} → ${target}`),
    );
  });
  expect(wrong).toEqual([]);
});

it('every room is one that the order knows', () => {
  const folders = new Set(files.map((file) => path.dirname(file)).filter((folder) => folder.includes('/')));
  const known = Object.entries(ROOMS).flatMap(([folder, rooms]) => rooms.map((room) => `${folder}/${room}`));
  expect([...folders].sort()).toEqual(known.sort());
});

it('every room is a row of ARCHITECTURE.md, and says the same at the top of its entry file', () => {
  const architecture = readFileSync('ARCHITECTURE.md', 'utf8');
  const rows = [...architecture.matchAll(/^\| `(\S+)\/` \| `(\S+)` \| (.*) \| (.*) \| (.*) \|$/gm)];
  const folders = new Set(files.map((file) => path.dirname(file)).filter((folder) => folder !== '.'));
  expect(rows.map(([, room]) => room).sort()).toEqual([...folders].sort());
  for (const [, room, entry, purpose, promises, knows] of rows) {
    const [header] = /^(?:\/\/ .*\n)*/.exec(readFileSync(path.join(SOURCE, entry!), 'utf8'))!;
    const lines = header.trimEnd().split('\n');
    expect(lines.map((line) => line.slice('// '.length)).join(' ')).toBe(
      `${room}/: ${purpose} Promises: ${promises} May know: ${knows}`,
    );
    expect([entry, lines.length <= LINES_OF_A_HEADER]).toEqual([entry, true]);
  }
});

it(`no folder has more than ${FILES_OF_A_FOLDER} files, and no file more than ${LINES_OF_A_FILE} lines`, () => {
  const counts = new Map<string, number>();
  for (const file of files) counts.set(path.dirname(file), (counts.get(path.dirname(file)) ?? 0) + 1);
  expect([...counts].filter(([, count]) => count > FILES_OF_A_FOLDER)).toEqual([]);
  const linesOf = (file: string) => readFileSync(path.join(SOURCE, file), 'utf8').split('\n').length - 1;
  expect(files.filter((file) => linesOf(file) > LINES_OF_A_FILE)).toEqual([]);
});

function mayImport(file: string, target: string): boolean {
  const [from, to] = [file, target].map((each) => (each.includes(path.sep) ? each.split(path.sep)[0]! : ''));
  if (from === '' || from === to) return true;
  if (to === 'dev') return from === 'app';
  if (from === 'operations' && to === 'people') return false;
  return FOLDERS.indexOf(to!) > FOLDERS.indexOf(from!);
}

it.each([
  ['kafkajs', ['messaging/kafka/kafkajs/', 'dev/']],
  ['@platformatic/kafka', ['messaging/kafka/platformatic/']],
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
    ['src/json/x.ts', '../people/person.entity.js'],
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
    ['src/people/http/x.ts', '../../json/scanner.js'],
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
