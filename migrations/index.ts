import { CreatePeople1700000000000 } from './1700000000000-CreatePeople.js';
import { CreateMessaging1700000000001 } from './1700000000001-CreateMessaging.js';
import { CreateOutboxLeases1700000000002 } from './1700000000002-CreateOutboxLeases.js';
import { AddOutboxTrace1700000000005 } from './1700000000005-AddOutboxTrace.js';
import { CreateTransactionOutcomes1700000000003 } from './1700000000003-CreateTransactionOutcomes.js';
import { CreateMessageOperations1700000000006 } from './1700000000006-CreateMessageOperations.js';

/** Everything PeopleModule needs in the database, for `migrations` of your DataSource. Classes, not a glob: globs break bundlers and Jest. */
export const peopleMigrations = [
  CreatePeople1700000000000,
  CreateMessaging1700000000001,
  CreateOutboxLeases1700000000002,
  CreateTransactionOutcomes1700000000003,
  AddOutboxTrace1700000000005,
  CreateMessageOperations1700000000006,
];

/** What MessagingModule needs without people: inbox, outbox, dead letters and what is kept of operations on them. */
export const messagingMigrations = peopleMigrations.slice(1);

/** What TransactionsModule needs by itself, and only for `commitOutcome: 'row'`. */
export const transactionMigrations = [CreateTransactionOutcomes1700000000003];
