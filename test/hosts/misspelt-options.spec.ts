import type { Type } from '@nestjs/common';
import { MessagingModule } from '../../src/messaging/messaging.module.js';
import { PeopleModule } from '../../src/people/people.module.js';
import { TransactionsModule } from '../../src/transactions/transactions.module.js';
import { startAnyHost, typeOrm } from '../support/any-host.js';
import { duringTests } from '../support/during-tests.js';
import { createDatabase } from '../support/test-database.js';

const database = duringTests(() => createDatabase());

// As somebody writes them whom no type warns: in JavaScript, from a file, with `as any`.
const people = (options: object) => PeopleModule.forRoot(options);
const refusal = (...imports: object[]) =>
  expect(startAnyHost({ imports: [typeOrm(database.url), ...(imports as Type[])] })).rejects;

// @trap a misspelt option is one without effect: `isolationLvel: 'SERIALIZABLE'` leaves units of work at READ COMMITTED
it.each<[string, () => object, string]>([
  [
    'misspelt',
    () => people({ event: true, transactions: { isolationLvel: 'SERIALIZABLE' } }),
    'PeopleModule.forRoot: there is no option event; did you mean events?; there is no option transactions.isolationLvel; did you mean transactions.isolationLevel?',
  ],
  [
    'in another place than its own',
    () => people({ isolationLevel: 'SERIALIZABLE' }),
    'there is no option isolationLevel; did you mean transactions.isolationLevel?',
  ],
  ['like no other', () => people({ wibble: 1 }), 'PeopleModule.forRoot: there is no option wibble'],
  [
    'misspelt beside a factory',
    () => PeopleModule.forRootAsync({ dataSuorce: 'crm', useFactory: () => ({}) } as never),
    'there is no option dataSuorce; did you mean dataSource?',
  ],
  [
    'misspelt by a factory',
    () => PeopleModule.forRootAsync({ useFactory: () => Promise.resolve({ maxDataByte: 5 } as object) }),
    'there is no option maxDataByte; did you mean maxDataBytes?',
  ],
  [
    'of a unit of work, misspelt',
    () => TransactionsModule.forRoot({ maxAttemps: 3 } as object),
    'TransactionsModule.forRoot: there is no option maxAttemps; did you mean maxAttempts?',
  ],
  [
    'of messages, misspelt',
    () => MessagingModule.forRoot({ inboxRetention: 3 } as object),
    'MessagingModule.forRoot: there is no option inboxRetention; did you mean inboxRetentionMs?',
  ],
  ['that gives none', () => PeopleModule.forRootAsync({ useFactory: () => undefined as never }), 'PeopleModule.forRoot: useFactory must give an object, not undefined'],
  ['a dataType that is no class', () => people({ dataType: { u64: 'bigint' } }), 'dataType: an object is not a class'],
  ['a dataType that is a function', () => people({ dataType: () => undefined }), 'dataType: a function is not a class'],
  ['a door that there is none of', () => people({ controllers: { htpp: false } }), 'there is no option controllers.htpp; did you mean controllers.http?'],
  ['a boolean as text', () => people({ events: 'true' }), "events: 'true' is not a boolean"],
  ['a number as text', () => people({ pageBytes: '5' }), "pageBytes: '5' is not a whole number"],
  ['a choice that there is none of', () => people({ tombstones: 'drop' }), "tombstones: 'drop' is not one of refuse, delete"],
  ['a level that there is none of', () => TransactionsModule.forRoot({ isolationLevel: 'SNAPSHOT' as never }), 'isolationLevel must be one of READ COMMITTED, REPEATABLE READ, SERIALIZABLE, not SNAPSHOT'],
])('an option %s refuses the start', (_, module, message) => refusal(module()).toThrow(message)); // prettier-ignore

it.each<[string, () => object, string]>([
  [
    'PeopleModule',
    () => people({ dataSource: 'crm' }),
    "There is no DataSource of the name 'crm' (option dataSource); the application has default. Import TypeOrmModule.forRoot({ name: 'crm', … }) in the root module, or give the name of one that is there.",
  ],
  ['MessagingModule', () => MessagingModule.forRoot({ dataSource: 'crm' }), 'the application has default'],
])('a DataSource that is not there refuses the start of %s, with those that are', (_, module, message) =>
  refusal(module()).toThrow(message),
);

it.each([
  ['of another name alone', () => [typeOrm(database.url, { name: 'crm' })], 'has crm'],
  ['at all', () => [], 'has none'],
])('where there is none %s, the start is refused with what to write', async (_, dataSources, has) => {
  await expect(startAnyHost({ imports: [...dataSources(), people({})] })).rejects.toThrow(
    `There is no default DataSource; the application ${has}. Import TypeOrmModule.forRoot({ … }) in the root module, or name one: forRoot({ dataSource: '…' }).`,
  );
});

it('what keeps a DataSource from being made is told as it is', async () => {
  const url = database.url.replace(/test_\w+/, 'no_such_database');
  await expect(startAnyHost({ imports: [people({}), typeOrm(url)] })).rejects.toThrow(
    'database "no_such_database" does not exist',
  );
});
