import { InitError } from './init-error.js';
import type { Main } from './main-file.js';
import type { Project } from './project.js';
import type { Call, ObjectLiteral } from './literals.js';
import type { Source } from './source.js';

/** What TypeORM is given where there is none. */
const FOR_ROOT = `TypeOrmModule.forRoot({
  type: 'postgres',
  url: process.env.DATABASE_URL,
  autoLoadEntities: true,
  installExtensions: false, // gen_random_uuid() is built in
  migrations: [...peopleMigrations],
  migrationsRun: true,
  migrationsTransactionMode: 'each', // people's index is built without locking out writers
})`;

/** The DataSource that people is to work on. */
export interface PeoplesDataSource {
  /** Undefined: it is the default one. */
  name: string | undefined;
  /** The module that makes it, where there was none: for the imports of the root module. */
  newModule: string | undefined;
}

/**
 * Gives the application a DataSource that knows people's entity and migrations: its own, or a new one.
 *
 * @throws InitError it is not seen which one that is
 */
export function dataSourceFor(project: Project, { rootModule: { source } }: Main): PeoplesDataSource {
  const places = dataSources(project);
  if (places.length === 0) {
    source.addImports('@nestjs/typeorm', ['TypeOrmModule']);
    source.addImports('nestjs-people', ['peopleMigrations']);
    return { name: undefined, newModule: FOR_ROOT };
  }
  const [place, ...others] = places.filter(({ options }) => options?.get('type')?.string === 'postgres');
  const known = places.map(({ source, call }) => `${call.callee} of ${source.name}`).join(', ');
  if (!place)
    throw new InitError(
      `${known}: the options are not seen to be a PostgreSQL's. Give the DataSource that people is to work on these, and PeopleModule.forRoot() into the imports of the root module:\n${LINES.join('\n')}`,
    );
  if (others.length > 0)
    throw new InitError(
      `${known}: there are several DataSources. Write PeopleModule.forRoot({ dataSource: 'name' }) into the imports of the root module, and give the DataSource of that name:\n${LINES.join('\n')}`,
    );
  const name = (place.call.arguments[0]?.object?.get('name') ?? place.options!.get('name'))?.string;
  project.attempt(place.source, () => addMigrations(place.source, place.options!));
  return { name: name === 'default' ? undefined : name, newModule: undefined };
}

interface Place {
  source: Source;
  call: Call;
  /** Undefined: they are made somewhere else. */
  options: ObjectLiteral | undefined;
}

function dataSources(project: Project): Place[] {
  return project.sourcesNaming('TypeOrmModule').flatMap((source) => {
    const name = source.localName('@nestjs/typeorm', 'TypeOrmModule');
    if (name === undefined) return [];
    return [
      ...source
        .calls(`${name}.forRoot`)
        .map((call) => ({ source, call, options: call.arguments[0]?.object })),
      ...source.calls(`${name}.forRootAsync`).map((call) => ({
        ...{ source, call },
        options: call.arguments[0]?.object?.get('useFactory')?.object,
      })),
    ];
  });
}

/** What people needs of a DataSource. */
const LINES = [
  'autoLoadEntities: true,',
  'migrations: [...peopleMigrations],',
  "migrationsTransactionMode: 'each',",
] as const;

function addMigrations(source: Source, options: ObjectLiteral): void {
  if (options.hasSpread)
    throw new InitError(
      `${source.name}: the DataSource takes options over from another object. See that it has, with what it has already:\n${LINES.join('\n')}`,
    );
  const unfit = [
    options.get('autoLoadEntities')?.text === 'false' &&
      "autoLoadEntities: it has to be true, or Person of 'nestjs-people' among the entities",
    !['each', 'none', undefined].includes(options.get('migrationsTransactionMode')?.string) &&
      "migrationsTransactionMode: it has to be 'each', as people's index is built without locking out writers",
    hasOtherMigrations(options) &&
      "migrations: write [...peopleMigrations, …], with peopleMigrations of 'nestjs-people'",
  ].filter((each) => typeof each === 'string');
  if (unfit.length > 0)
    throw new InitError(`${source.name}: the options of the DataSource:\n${unfit.join('\n')}`);
  const migrations = options.get('migrations');
  const local = source.localName('nestjs-people', 'peopleMigrations') ?? 'peopleMigrations';
  const isThere =
    migrations?.array?.items.some(({ text }) => text === `...${local}`) || migrations?.text === local;
  const added = [
    !options.get('autoLoadEntities') && 'autoLoadEntities: true',
    !migrations && 'migrations: [...peopleMigrations]',
    !migrations && !options.get('migrationsRun') && 'migrationsRun: true',
    !options.get('migrationsTransactionMode') && "migrationsTransactionMode: 'each'",
  ].filter((each) => typeof each === 'string');
  if (!isThere) {
    migrations?.array?.add(['...peopleMigrations'], 0);
    source.addImports('nestjs-people', ['peopleMigrations']);
  }
  options.add(added);
}

function hasOtherMigrations(options: ObjectLiteral): boolean {
  const migrations = options.get('migrations');
  return migrations !== undefined && !migrations.array && migrations.text !== 'peopleMigrations';
}
