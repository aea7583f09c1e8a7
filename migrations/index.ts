import { CreatePeople1700000000000 } from './1700000000000-CreatePeople.js';
import { CreateMessaging1700000000001 } from './1700000000001-CreateMessaging.js';
import { CreateOutboxLeases1700000000002 } from './1700000000002-CreateOutboxLeases.js';

/** Everything PeopleModule needs in the database, for `migrations` of your DataSource. Classes, not a glob: globs break bundlers and Jest. */
export const peopleMigrations = [
  CreatePeople1700000000000,
  CreateMessaging1700000000001,
  CreateOutboxLeases1700000000002,
];
