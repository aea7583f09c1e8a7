import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { applicationFiles } from '../../src/app/commands/application-files.js';
import { planInit } from '../../src/app/init/plan.js';

const { peerDependencies, version } = JSON.parse(readFileSync('package.json', 'utf8')) as {
  peerDependencies: Record<string, string>;
  version: string;
};
/** The lines of Nest that an application may be of. */
const NESTS = peerDependencies['@nestjs/core']!.split('||').map((range) => range.trim());
const NEWEST = NESTS.at(-1)!;

let root: string;

beforeEach(() => {
  mkdirSync('.data', { recursive: true });
  root = mkdtempSync(path.resolve('.data', 'init-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const MAIN = `import { NestFactory } from '@nestjs/core';
import { AppModule } from './app.module.js';

async function bootstrap() {
  const app = await NestFactory.create(AppModule);
  await app.listen(process.env.PORT ?? 3000);
}
await bootstrap();
`;
const APP_MODULE = `import { Module } from '@nestjs/common';
import { AppController } from './app.controller.js';

@Module({
  imports: [],
  controllers: [AppController],
})
export class AppModule {}
`;
const manifest = (nest = NEWEST) => `{
  "name": "shop",
  "type": "module",
  "dependencies": {
    "@nestjs/common": "${nest}",
    "@nestjs/core": "${nest}",
    "rxjs": "^7.8.1"
  },
  "devDependencies": { "typescript": "^6.0.2" }
}
`;

/** An application's files; what is given takes the place of, or comes on top of, what Nest's command line generates. */
function application(files: Record<string, string> = {}): void {
  const all = { 'package.json': manifest(), 'src/main.ts': MAIN, 'src/app.module.ts': APP_MODULE, ...files };
  for (const [name, text] of Object.entries(all)) {
    mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    writeFileSync(path.join(root, name), text);
  }
}

const read = (name: string) => readFileSync(path.join(root, name), 'utf8');
const texts = () =>
  Object.fromEntries(
    readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => path.relative(root, path.join(parentPath, name)))
      .map((name) => [name, read(name)]),
  );

async function run(file: string, ...args: string[]) {
  const { PATH, HOME } = process.env;
  const ran = promisify(execFile)(file, args, { cwd: root, env: { PATH, HOME } });
  ran.child.stdin?.end();
  return ran.then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error: { code: number; stdout: string; stderr: string }) => error,
  );
}
const init = (...args: string[]) =>
  run(process.execPath, path.resolve('dist/src/cli.js'), 'init', '--skip-install', ...args);

/** `nestjs-people init --yes`, and again: what was left to be written by hand the first time. */
async function initialized(): Promise<string> {
  const { code, stderr } = await init('--yes');
  const after = texts();
  const again = await init('--yes');
  expect(texts()).toEqual(after);
  expect(again).toMatchObject({ code, stderr });
  expect(code).toBe(stderr === '' ? 0 : 3);
  return stderr;
}

/** The same plan without a process of its own, carried out and made once more. */
function planned(): string {
  const { changes, byHand } = planInit(applicationFiles(root));
  for (const { name, after } of changes) writeFileSync(path.join(root, name), after);
  expect(planInit(applicationFiles(root))).toEqual({ changes: [], byHand, installs: false });
  return byHand.join('\n');
}

it('an application as it is generated gets packages, module, migrations, main.ts and configuration; then there is nothing to do', async () => {
  application();
  expect(await initialized()).toBe('');
  expect(read('src/app.module.ts')).toBe(`import { Module } from '@nestjs/common';
import { AppController } from './app.controller.js';
import { TypeOrmModule } from '@nestjs/typeorm';
import { peopleMigrations, PeopleModule } from 'nestjs-people';

@Module({
  imports: [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: process.env.DATABASE_URL,
      autoLoadEntities: true,
      installExtensions: false, // gen_random_uuid() is built in
      migrations: [...peopleMigrations],
      migrationsRun: true,
      migrationsTransactionMode: 'each', // people's index is built without locking out writers
    }),
    PeopleModule.forRoot(),
  ],
  controllers: [AppController],
})
export class AppModule {}
`);
  // By hand it is the same.
  const [added] = /^    TypeOrmModule[^]*PeopleModule.forRoot\(\),\n/m.exec(read('src/app.module.ts'))!;
  expect(readFileSync('README.md', 'utf8')).toContain(added);
  expect(read('src/main.ts')).toContain(`
  const app = await NestFactory.create(AppModule);
  app.enableShutdownHooks(); // on SIGTERM, what runs is finished
  await app.listen(`);
  expect(read('.env.example')).toMatch(/^DATABASE_URL=postgres:/);
  expect((await init('--yes')).stdout).toBe('Everything is there: nothing to do.\n');
});

it('what is shown is a diff that git applies, to what is written', async () => {
  application({ '.env.example': 'PORT=3000' });
  const { stdout } = await init('--dry-run');
  writeFileSync(path.join(root, 'shown.diff'), stdout);
  expect(await run('git', 'apply', 'shown.diff')).toMatchObject({ stderr: '' }); // prettier-ignore
  const applied = texts();
  application({ '.env.example': 'PORT=3000' });
  expect(await init('--yes')).toMatchObject({ code: 0 });
  expect(texts()).toEqual(applied);
});

it.each(NESTS)('an application of Nest %s gets packages of its age, and what it has stays', (nest) => {
  application({ 'package.json': manifest(nest).replace('"rxjs"', '"pg": "8.22.0",\n    "rxjs"') });
  expect(planned()).toBe('');
  const { dependencies } = JSON.parse(read('package.json')) as { dependencies: Record<string, string> };
  const names = Object.keys(dependencies);
  expect(names).toEqual([...names].sort());
  expect(dependencies).toMatchObject({ pg: '8.22.0', 'nestjs-people': `^${version}`, rxjs: '^7.8.1' });
  const ofNest = peerDependencies['@nestjs/typeorm']!.split('||').map((range) => range.trim());
  expect(dependencies['@nestjs/typeorm']).toBe(ofNest[NESTS.indexOf(nest)]);
  expect(read('package.json')).toContain('"devDependencies": { "typescript": "^6.0.2" }');
});

it('an application whose TypeScript has no API any more is read with that of Nest’s command line', async () => {
  const without = { 'node_modules/typescript/package.json': '{}', 'node_modules/typescript/index.js': '' };
  application(without);
  expect(await initialized()).toBe('');
  expect(read('src/app.module.ts')).toContain('PeopleModule.forRoot()');
});

it('an application’s own DataSource is taken, and its comments, line ends and tabs stay as they are', async () => {
  application({
    'src/app.module.ts': APP_MODULE.replace('imports: []', 'imports: [DatabaseModule] /* ours */'),
    'src/database/database.module.ts': `import { Module } from "@nestjs/common";
import { TypeOrmModule } from "@nestjs/typeorm";
import { CreateOrders } from "../migrations/orders";

@Module({
	imports: [
		// one pool
		TypeOrmModule.forRootAsync({
			useFactory: () => ({
				type: "postgres" as const,
				name: "main",
				migrations: [CreateOrders],
				poolSize: 10 // as many as we were given
			}),
		}),
	],
})
export class DatabaseModule {}
`.replaceAll('\n', '\r\n'),
  });
  expect(await initialized()).toBe('');
  expect(read('src/database/database.module.ts')).toBe(`import { Module } from "@nestjs/common";
import { TypeOrmModule } from "@nestjs/typeorm";
import { CreateOrders } from "../migrations/orders";
import { peopleMigrations } from "nestjs-people";

@Module({
	imports: [
		// one pool
		TypeOrmModule.forRootAsync({
			useFactory: () => ({
				type: "postgres" as const,
				name: "main",
				migrations: [...peopleMigrations, CreateOrders],
				poolSize: 10, // as many as we were given
				autoLoadEntities: true,
				migrationsTransactionMode: 'each'
			}),
		}),
	],
})
export class DatabaseModule {}
`.replaceAll('\n', '\r\n')); // prettier-ignore
  expect(read('src/app.module.ts')).toContain(
    `  imports: [DatabaseModule, PeopleModule.forRoot({ dataSource: 'main' })] /* ours */,\n`,
  );
  expect(texts()).not.toHaveProperty(['.env.example']);
});

it('an application that keeps the bodies of all its routes is prepared for those of people', () => {
  const create = `NestFactory.create<NestExpressApplication>(AppModule, new ExpressAdapter(), { rawBody: true })`;
  application({ 'src/main.ts': MAIN.replace('NestFactory.create(AppModule)', create) });
  expect(planned()).toBe('');
  expect(read('src/main.ts')).toContain(`
import { preparePeopleHost } from 'nestjs-people';

async function bootstrap() {
  const app = await ${create};
  preparePeopleHost(app); // large numbers, merge patches and NDJSON arrive as they were sent
  app.enableShutdownHooks(); // on SIGTERM, what runs is finished
  await app.listen(`);
});

it.each([
  ['of another database', `TypeOrmModule.forRoot({ type: 'mysql' })`, 'not seen to be a PostgreSQL'],
  ['that come from elsewhere', 'TypeOrmModule.forRoot(options)', 'not seen to be a PostgreSQL'],
  ['partly from elsewhere', `TypeOrmModule.forRoot({ type: 'postgres', ...more })`, 'takes options over'],
  ['with migrations from elsewhere', `TypeOrmModule.forRoot({ type: 'postgres', migrations })`, 'migrations: write [...peopleMigrations, …]'], // prettier-ignore
  ['with one transaction for all', `TypeOrmModule.forRoot({ type: 'postgres', migrationsTransactionMode: 'all' })`, "it has to be 'each'"], // prettier-ignore
  ['of several', `TypeOrmModule.forRoot({ type: 'postgres' }), TypeOrmModule.forRoot({ type: 'postgres', name: 'b' })`, 'several DataSources'], // prettier-ignore
])('options of TypeORM %s stay as they are, and what to write is said', (_, forRoot, sentence) => {
  const text = APP_MODULE.replace('imports: []', `imports: [${forRoot}]`).replace(
    '\n\n',
    `\nimport { TypeOrmModule } from '@nestjs/typeorm';\n\n`,
  );
  application({ 'src/app.module.ts': text });
  expect(planned()).toContain(sentence);
  expect(read('src/app.module.ts')).toContain(forRoot);
});

it.each([
  ['no application of Nest', { 'package.json': '{}' }, 'has no @nestjs/core'],
  ['one of an older Nest', { 'package.json': manifest('^10.4.0') }, 'works with Nest'],
  ['one that is not seen to be created', { 'src/main.ts': '' }, 'No place of src/'],
  ['one of a module that is made', { 'src/main.ts': MAIN.replace('(AppModule)', '(AppModule.forRoot())') }, 'not seen which class'], // prettier-ignore
  ['one with half a file', { 'src/main.ts': `${MAIN}{` }, 'syntax errors'],
])('%s is refused with a sentence, and left alone', (_, files, sentence) => {
  application(files);
  const before = texts();
  expect(planned).toThrow(sentence);
  expect(texts()).toEqual(before);
});

it.each([
  ['a PeopleModule of its own', 'src/app.module.ts', APP_MODULE.replace('\n\n', `\nimport { PeopleModule } from './people.js';\n\n`), 'PeopleModule is something else here'], // prettier-ignore
  [
    'imports that are not a list',
    'src/app.module.ts',
    APP_MODULE.replace('[]', 'modules'),
    'Write into them:',
  ],
  ['nothing that listens', 'src/main.ts', MAIN.replace('app.listen', 'start'), 'app.enableShutdownHooks();'],
])('an application with %s is told what to write', (_, name, text, sentence) => {
  application({ [name]: text });
  expect(planned()).toContain(sentence);
  expect(read(name)).toBe(text);
});

it('nothing is written where it is only asked for, or where nobody can be asked', async () => {
  application();
  const before = texts();
  expect(await init('--dry-run')).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('+++ b/src/main.ts'),
  });
  expect(await init()).toMatchObject({ code: 2, stderr: expect.stringContaining('say --yes, or --dry-run') });
  expect(await init('--all')).toMatchObject({ code: 2, stderr: expect.stringContaining('usage:') });
  expect(texts()).toEqual(before);
  rmSync(path.join(root, 'package.json'));
  expect(await init()).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('There is no package.json here'),
  });
});

it('nest add does the same, by a schematic', async () => {
  const collection = path.resolve('dist/src/app/init/collection.json');
  const schematics = path.resolve('node_modules/@angular-devkit/schematics-cli/bin/schematics.js');
  application();
  expect(await run(process.execPath, schematics, `${collection}:nest-add`, '--source-root=src', '--skip-install', '--no-debug')).toMatchObject({ code: 0 }); // prettier-ignore
  const added = texts();
  rmSync(root, { recursive: true });
  application();
  expect(await init('--yes')).toMatchObject({ code: 0 });
  expect(texts()).toEqual(added);
});
