import pg from 'pg';
import { copyIn } from '../../src/database/pg/copy-in.js';
import { duringTests } from '../support/during-tests.js';
import { describeWithPgBouncer, POOL_MODES, startPgBouncer } from '../support/pgbouncer.js';
import { createDatabase } from '../support/test-database.js';

const ROWS = 100_000;
/** Of several messages and more than the buffers on the way hold, so that the server has refused it while it is still being sent. */
const rows = Buffer.from(Array.from({ length: ROWS }, (_, n) => `${n}\t${'x'.repeat(100)}\n`).join(''));

const database = duringTests(() => createDatabase());
const client = duringTests(async () => {
  const connected = new pg.Client(database.url);
  await connected.connect();
  await connected.query('CREATE TABLE numbers (number int PRIMARY KEY, text text)');
  return Object.assign(connected as unknown as pg.PoolClient, { close: () => connected.end() });
});
beforeEach(() => client.query('TRUNCATE numbers'));

const COPY = 'COPY numbers (number, text) FROM STDIN';
const count = async () => Number((await client.query<{ n: string }>('SELECT count(*) AS n FROM numbers')).rows[0]!.n); // prettier-ignore

it('all rows arrive, in one statement', async () => {
  expect(await copyIn(client, COPY, rows)).toBe(ROWS);
  expect(await count()).toBe(ROWS);
  expect(await copyIn(client, COPY, Buffer.alloc(0))).toBe(0);
});

it.each([
  ['at once', 'COPY nowhere FROM STDIN', '42P01'],
  [
    'for a row in the middle',
    'COPY numbers (number, text) FROM STDIN WHERE 1 / (number - 5000) < 2',
    '22012',
  ],
])('one that the server refuses %s leaves the connection fit for the next', async (_, copy, code) => {
  const refused = copyIn(client, copy, rows);
  const asked = client.query<{ one: number }>('SELECT 1 AS one');
  await expect(refused).rejects.toMatchObject({ code });
  expect((await asked).rows).toEqual([{ one: 1 }]);
  expect(await count()).toBe(0);
  expect(await copyIn(client, COPY, rows)).toBe(ROWS);
});

it('one whose connection is lost is told its end', async () => {
  const lost = new pg.Client(database.url);
  lost.on('error', () => undefined);
  await lost.connect();
  const copying = copyIn(lost as unknown as pg.PoolClient, COPY, rows);
  (lost as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
  await expect(copying).rejects.toThrow();
  await expect(copyIn(lost as unknown as pg.PoolClient, COPY, rows)).rejects.toThrow();
  expect(await count()).toBe(0);
});

describeWithPgBouncer('through PgBouncer', () => {
  it.each(POOL_MODES)(
    'in %s mode, one that is refused in a transaction leaves it fit for the next',
    async (poolMode) => {
      const bouncer = await startPgBouncer({ server: database.url, poolMode });
      const through = new pg.Client(bouncer.url);
      try {
        await through.connect();
        const copies = (text: string) => copyIn(through as unknown as pg.PoolClient, text, rows);
        for (const refused of ['COPY nowhere FROM STDIN', `${COPY} WHERE 1 / (number - 5000) < 2`]) {
          await through.query('BEGIN');
          await expect(copies(refused)).rejects.toThrow();
          await through.query('ROLLBACK');
        }
        await through.query('BEGIN');
        expect(await copies(COPY)).toBe(ROWS);
        await through.query('COMMIT');
        expect(await count()).toBe(ROWS);
      } finally {
        await through.end();
        await bouncer.stop();
      }
    },
  );
});
