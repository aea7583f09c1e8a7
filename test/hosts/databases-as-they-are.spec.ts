import { DataSource, DefaultNamingStrategy, Entity, PrimaryGeneratedColumn } from 'typeorm';
import { getDataSourceToken } from '@nestjs/typeorm';
import { peopleMigrations } from '../../migrations/index.js';
import { dataSourceOptions } from '../../src/database/data-source-options.js';
import { MessagingModule } from '../../src/messaging/messaging.module.js';
import { PeopleModule } from '../../src/people/people.module.js';
import { PeopleService } from '../../src/people/people.service.js';
import { Person } from '../../src/people/person.entity.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { type AnyHost, startAnyHost, typeOrm } from '../support/any-host.js';
import { barrier, eventually } from '../support/barrier.js';
import { poolOf } from '../support/people-app.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

let database: TestDatabase;
let host: AnyHost | undefined;
beforeEach(async () => {
  database = await createDatabase('template0');
});
afterEach(async () => {
  await host?.close();
  host = undefined;
  await database.drop();
});

type TypeOrmOptions = Parameters<typeof typeOrm>[1];
const MIGRATED = {
  migrations: peopleMigrations,
  migrationsRun: true,
  migrationsTransactionMode: 'each',
} as const;

async function start(options: TypeOrmOptions, people: Parameters<typeof PeopleModule.forRoot>[0] = {}) {
  host = await startAnyHost({
    imports: [
      typeOrm(database.url, options),
      PeopleModule.forRoot({ controllers: { messages: false }, ...people }),
    ],
  });
  return host;
}
const dataSource = () => host!.app.get<DataSource>(getDataSourceToken(), { strict: false });

/** By PeopleService, by the routes, and by a repository of the host's own: they are the same people. */
async function storesPeople(): Promise<void> {
  const people = host!.app.get(PeopleService, { strict: false });
  const { id } = await people.create({ name: 'Ada', data: { n: 1 } });
  expect((await host!.send('PATCH', `/people/${id}`, '{"name":"Bob"}')).status).toBe(200);
  await people.createMany([{ name: 'Cyd' }]);
  const repository = dataSource().getRepository(Person);
  const own = await repository.save({ name: 'Dan', data: null });
  expect((await people.get(own.id)).name).toBe('Dan');
  expect((await repository.find({ order: { name: 'ASC' } })).map(({ name }) => name)).toEqual(['Bob', 'Cyd', 'Dan']); // prettier-ignore
}

const snake = (name: string) => name.replace(/(.)([A-Z])/g, '$1_$2').toLowerCase();
/** As snake_case strategies are written. */
class SnakeNaming extends DefaultNamingStrategy {
  override tableName(name: string, given: string | undefined) {
    return given ?? snake(name);
  }
  override columnName(name: string, given: string | undefined, prefixes: string[]) {
    return [...prefixes, given ?? name].map(snake).join('_');
  }
}
class LoudNaming extends DefaultNamingStrategy {
  override tableName(name: string, given: string | undefined) {
    return (given ?? name).toUpperCase();
  }
}
class StubbornNaming extends DefaultNamingStrategy {
  override columnName(name: string) {
    return `c_${name}`;
  }
}

// @trap with `entityPrefix` a library's own SQL and the repositories of its entities are about two tables
it.each<[string, TypeOrmOptions, string]>([
  ['an entityPrefix', { entityPrefix: 'App_' }, '"App_people"'],
  ['a naming strategy of snake_case', { namingStrategy: new SnakeNaming() }, 'people'],
  ['a naming strategy of capitals', { namingStrategy: new LoudNaming() }, '"PEOPLE"'],
])('with %s people are in the table that TypeORM looks for', async (_, options, table) => {
  const { told } = await start({ ...options, ...MIGRATED });
  await storesPeople();
  expect(await database.query(`SELECT FROM ${table}`)).toHaveLength(3);
  expect(told).toEqual([]);
});

it('a naming strategy that renames what has a name refuses the start', async () => {
  await expect(start({ namingStrategy: new StubbornNaming(), ...MIGRATED })).rejects.toThrow(
    "makes c_id of Person's column id, which has that name on purpose. Have its columnName() return the customName where there is one.",
  );
});

it.each<[string, (url: string) => TypeOrmOptions]>([
  ['of the DataSource', () => ({ schema: 'crm' })],
  ['on the search_path of the URL', (url) => ({ url: `${url}?options=-c%20search_path%3Dcrm` })],
])('with a schema %s migrations and people are in it', async (_, options) => {
  await database.query('CREATE SCHEMA crm');
  const { told } = await start({ ...options(database.url), ...MIGRATED }, { events: true });
  await storesPeople();
  expect(await database.query('SELECT FROM crm.people')).toHaveLength(3);
  expect(await database.query('SELECT FROM crm.message_outbox')).toHaveLength(3);
  expect(told).toEqual([]);
});

it('what the URL asks of a session stays beside what the settings ask for', async () => {
  const settings = { poolSize: 1, acquireTimeoutMs: 5000, statementTimeoutMs: 0, ssl: 'off', isolationLevel: 'SERIALIZABLE' } as const; // prettier-ignore
  const url = `${database.url}?options=-c%20search_path%3Dcrm`;
  const own = await new DataSource(dataSourceOptions({ ...settings, url }, () => undefined)).initialize();
  const asked = ['search_path', 'default_transaction_isolation', 'statement_timeout'];
  const rows = await own.query('SELECT current_setting(unnest($1::text[])) AS value', [asked]);
  await own.destroy();
  expect(rows).toEqual([{ value: 'crm' }, { value: 'serializable' }, { value: '0' }]);
});

it('synchronize leaves the table of the migrations as it is, needs no extension for it, and gives own entities the keys that the host chose', async () => {
  @Entity('contracts')
  class Contract {
    @PrimaryGeneratedColumn('uuid')
    id!: string;
  }
  const { told } = await start({
    ...{ ...MIGRATED, entities: [Contract], synchronize: true },
    ...{ installExtensions: false, uuidExtension: 'pgcrypto' },
  });
  await storesPeople();
  const { id } = await dataSource().getRepository(Contract).save({});
  expect(id).toMatch(/^[0-9a-f-]{36}$/);
  const defaults = await database.query(
    `SELECT column_default FROM information_schema.columns WHERE table_name = 'people' AND column_name = 'id'`,
  );
  expect(defaults).toEqual([{ column_default: 'gen_random_uuid()' }]);
  expect(await database.query(`SELECT FROM pg_extension WHERE extname <> 'plpgsql'`)).toEqual([]);
  expect(told).toEqual([]);
});

// @trap an entity's uuid keys make TypeORM install an extension, and fail without it
it('synchronize alone makes the table of people without an extension, and what is missing for messages is told', async () => {
  const { told } = await start({ synchronize: true, installExtensions: false });
  await storesPeople();
  expect(await database.query(`SELECT FROM pg_extension WHERE extname <> 'plpgsql'`)).toEqual([]);
  expect(told).toEqual([expect.stringContaining('"message_inbox", "message_outbox"')]);
});

it.each([
  ['PeopleModule', () => PeopleModule.forRoot(), [/^The table people is not there .*run the migrations/, /^The tables "message_inbox".* are not there; run the migrations/]], // prettier-ignore
  ['MessagingModule', () => MessagingModule.forRoot(), [/^The tables "message_inbox".* are not there; run the migrations/]], // prettier-ignore
] as const)('%s tells at start that the migrations were not run', async (_, module, sentences) => {
  host = await startAnyHost({ imports: [typeOrm(database.url), module()] });
  expect(host.told.sort()).toEqual(sentences.map((sentence) => expect.stringMatching(sentence)));
});

// @trap TypeORM's pool has requests wait for ever while all its connections are busy
it('a pool without a limit of its own is waited for no longer than the option acquireTimeoutMs says', async () => {
  await start({ ...MIGRATED, poolSize: 1 }, { transactions: { acquireTimeoutMs: 50 } });
  const { id } = await host!.app.get(PeopleService, { strict: false }).create({ name: 'Ada' });
  const holder = dataSource().createQueryRunner();
  await holder.connect();
  const refused = await host!.request(`/people/${id}`);
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1']);
  expect(await refused.json()).toMatchObject({ type: '/problems/pool-exhausted' });
  const runner = host!.app.get(TransactionRunner, { strict: false });
  await expect(runner.run({}, () => Promise.resolve())).rejects.toMatchObject({ type: 'pool-exhausted' });
  await holder.release();
  await eventually(() => poolOf(dataSource()).borrowed === 0);
  // Of those that find one idle together, one has it.
  const gate = barrier(2);
  const first = runner.run({}, async (transaction) => {
    await transaction.query({ text: 'SELECT 1' });
    await gate();
  });
  await expect(runner.run({}, () => Promise.resolve())).rejects.toMatchObject({ type: 'pool-exhausted' });
  void gate();
  await first;
  expect((await host!.request(`/people/${id}`)).status).toBe(200);
  await eventually(() => poolOf(dataSource()).borrowed === 0 && poolOf(dataSource()).waiting === 0);
});
