import type { TestDatabase } from './test-database.js';

/** How many `messagesOf` makes. */
export const PEOPLE = 100;

/** How many of those are stored that `messagesOf(prefix)` creates. */
export async function storedOf(database: TestDatabase, prefix: string): Promise<number> {
  const [row] = await database.query<{ n: number }>(
    `SELECT count(*)::int AS n FROM people WHERE name LIKE $1 || ' %'`,
    [prefix],
  );
  return row!.n;
}

/** The dead letters. */
export const deadIn = (database: TestDatabase) =>
  database.query('SELECT code, message FROM message_dead_letter');

/** Messages that create people, with ids, as the peer's client sends all again when a topic that is new has no leader yet. */
export const messagesOf = (prefix: string) =>
  Array.from({ length: PEOPLE }, (_, n) => ({
    key: String(n % 9),
    value: JSON.stringify({ name: `${prefix} ${n}` }),
    headers: { 'message-id': `${prefix} ${n}` },
  }));
