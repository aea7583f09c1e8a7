import pg from 'pg';
import { randomBytes } from 'node:crypto';

/** A database of the run's PostgreSQL, and a connection to it that is no part of the application under test. */
export interface TestDatabase {
  url: string;
  /** Rows of one statement. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
  drop(): Promise<void>;
}

/** @param template `people_template` has the migrations applied, `template0` is empty */
export async function createDatabase(template = 'people_template'): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  await onServer((query) => query(`CREATE DATABASE ${name} TEMPLATE ${template}`));
  const url = new URL(process.env.TEST_DATABASE_URL!);
  url.pathname = `/${name}`;
  return openDatabase(url.href, () => onServer((query) => query(`DROP DATABASE ${name} WITH (FORCE)`)));
}

/** A database that is there already. */
export async function openDatabase(
  url: string,
  drop: () => Promise<void> = () => Promise.resolve(),
): Promise<TestDatabase> {
  const client = new pg.Client(url);
  await client.connect();
  // A test may kill every other connection; this one then ends with the test.
  client.on('error', () => undefined);
  return {
    url,
    query: async <Row extends pg.QueryResultRow>(text: string, values: unknown[] = []) =>
      (await client.query<Row>(text, values)).rows,
    drop: async () => {
      await client.end();
      await drop();
    },
  };
}

/** Statements outside of any test's database. */
export async function onServer(
  use: (query: (text: string) => Promise<unknown>) => Promise<unknown>,
): Promise<void> {
  const client = new pg.Client(process.env.TEST_DATABASE_URL);
  await client.connect();
  try {
    await use((text) => client.query(text));
  } finally {
    await client.end();
  }
}
