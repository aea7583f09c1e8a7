import { DatabaseUnavailableError } from '../../src/database/postgres-errors.js';
import { OutcomeRows } from '../../src/transactions/unit/outcome-rows.js';
import { TransactionOutcomeUnknownError } from '../../src/transactions/transaction-errors.js';
import type { TransactionOptions } from '../../src/transactions/transaction-options.js';
import { ABSENCES, NO_IDS, takeAway, WITHOUT_THEM } from '../support/absent-functions.js';
import { failedWith, type LossyProxy, startLossyProxy } from '../support/lossy-proxy.js';
import { type PeopleHost, startPeopleHost } from '../support/people-host.js';
import { judge, prepare, WRITE_NAMES } from '../support/people-writes.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

let database: TestDatabase;
let proxy: LossyProxy;
let host: PeopleHost;

const INSERT = `INSERT INTO people (name) VALUES ('once')`;
const stored = async () => (await database.query(`SELECT FROM people WHERE name = 'once'`)).length;

async function start(
  absences: readonly string[],
  commitOutcome?: TransactionOptions['commitOutcome'],
): Promise<void> {
  database = await createDatabase();
  await takeAway(absences, database);
  proxy = await startLossyProxy(database.url);
  host = await startPeopleHost(proxy.url, {
    dataSource: { poolSize: 3, extra: { options: `-c search_path=${WITHOUT_THEM}` } },
    people: {
      events: true,
      transactions: { ...(commitOutcome && { commitOutcome }), backoff: { baseMs: 1, capMs: 1 } },
    },
  });
}
afterEach(async () => {
  await proxy.recover();
  await host.close();
  await proxy.close();
  await database.drop();
});

/** A unit of work of two statements, and what becomes of its first COMMIT. @returns how it ended */
async function unit(
  decide: 'answer lost' | 'never sent' | 'as it is' | Buffer,
  options: TransactionOptions = {},
): Promise<unknown> {
  let commits = 0;
  if (decide === 'answer lost' || Buffer.isBuffer(decide)) {
    const held = proxy.holdAnswers(/COMMIT\0/);
    void held.then(([answer]) => (Buffer.isBuffer(decide) ? answer!.replace(decide) : answer!.cut()));
  } else if (decide === 'never sent')
    proxy.onRequest = (piece) => {
      return piece.includes('COMMIT\0') && commits++ === 0 ? 'unsent' : 'pass';
    };
  return host.transactions
    .run(options, async (transaction) => {
      await transaction.query({ text: INSERT });
      await transaction.query({ text: 'SELECT 1' });
      return 'done';
    })
    .catch((error: Error) => error.constructor.name);
}

describe.each(Object.keys(ABSENCES))('on a server without %s', (absence) => {
  it('units of work and every operation are done as ever', async () => {
    await start([absence]);
    expect(await unit('never sent', { maxAttempts: 1, idempotent: true })).toEqual(expect.any(String));
    proxy.onRequest = () => 'pass';
    for (const name of WRITE_NAMES) {
      const write = await prepare({ ...host, database } as never, name);
      const response = await write.send();
      expect([name, response.status < 300]).toEqual([name, true]);
      expect(await judge(write, response, database)).toEqual([]);
    }
  });

  it('a COMMIT that is lost is never told as what it is not', async () => {
    await start([absence]);
    const isKnown = !NO_IDS.includes(absence);
    expect(await unit('answer lost')).toBe(isKnown ? 'done' : TransactionOutcomeUnknownError.name);
    expect(await stored()).toBe(1);
  });
});

describe.each<[what: string, absences: readonly string[]]>([
  ['PostgreSQL', []],
  ['a server without ids of transactions', NO_IDS],
  ['a server that lacks all of it', Object.keys(ABSENCES)],
])('with a row, on %s', (_, absences) => {
  beforeEach(() => start(absences, 'row'));

  it.each(['answer lost', 'never sent'] as const)('the outcome of a COMMIT (%s) is known', async (loss) => {
    expect(await unit(loss)).toBe('done');
    expect(await stored()).toBe(1);
  });

  it.each(['40003', '08007', 'XX000'])(
    'a COMMIT that is done and answered with %s is known as done',
    async (sqlState) => {
      expect(await unit(failedWith(sqlState))).toBe('done');
      expect(await stored()).toBe(1);
    },
  );

  it('where the answer is lost again when it is asked for, it is told rightly', async () => {
    let [commits, fences] = [0, 0];
    proxy.onRequest = (piece) => {
      if (piece.includes('COMMIT\0') && commits++ === 0) return 'unsent';
      if (piece.includes('is_fence) VALUES') && fences++ === 0) return (answer) => answer.cut();
      return 'pass';
    };
    const done = host.transactions.run({}, async (transaction) => {
      await transaction.query({ text: INSERT });
      await transaction.query({ text: 'SELECT 1' });
    });
    await done;
    expect([await stored(), commits, fences]).toEqual([1, 2, 2]);
  });

  it('each attempt has a row of its own', async () => {
    let commits = 0;
    proxy.onRequest = (piece) => (piece.includes('COMMIT\0') && commits++ < 3 ? 'unsent' : 'pass');
    await host.transactions.run({}, async (transaction) => {
      await transaction.query({ text: INSERT });
      await transaction.query({ text: 'SELECT 1' });
    });
    expect([await stored(), commits]).toEqual([1, 4]);
    const rows = await database.query<{ is_fence: boolean }>(
      'SELECT is_fence FROM transaction_outcome ORDER BY id',
    );
    expect(rows.map(({ is_fence }) => is_fence)).toEqual([true, true, true, false]);
  });

  it('a server that can’t be asked in time leaves it unknown', async () => {
    const held = proxy.holdAnswers(/COMMIT\0/);
    const running = host.transactions
      .run({ timeoutMs: 1500 }, async (transaction) => {
        await transaction.query({ text: INSERT });
        await transaction.query({ text: 'SELECT 1' });
      })
      .catch((error: Error) => error.constructor.name);
    const [answer] = await held;
    proxy.hang();
    answer!.cut();
    expect(await running).toBe(TransactionOutcomeUnknownError.name);
  });

  it.each(WRITE_NAMES)(
    '%s is done, and where its answer is lost told as done or as unknown',
    async (name) => {
      for (const loss of [false, true]) {
        const write = await prepare({ ...host, database } as never, name);
        const held = loss ? proxy.holdAnswers(/COMMIT\0/) : undefined;
        const response = write.send();
        if (held) (await held)[0]!.cut();
        expect(await judge(write, await response, database)).toEqual([]);
      }
    },
  );
});

describe('a request with an Idempotency-Key whose COMMIT is lost, on a server without any of them', () => {
  it.each([1, 2])(
    'is never told to have changed nothing, also where a look at its claim fails (the %s.)',
    async (fails) => {
      await start(NO_IDS);
      let looks = 0;
      proxy.onRequest = (piece) => {
        if (piece.includes('COMMIT\0')) return (answer) => answer.cut();
        // From then on nobody is found, be it on another connection.
        const isLost = piece.includes('inbox_find\0') && ++looks >= fails;
        if (isLost) void proxy.refuse();
        return isLost ? 'unsent' : 'pass';
      };
      const response = await fetch(`${host.url}/people/bulk`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'idempotency-key': 'once' },
        body: '[{"name":"once"},{"name":"once"}]',
      });
      const { type = '' } = (await response.json()) as { type?: string };
      expect(await stored()).toBe(2);
      expect([response.status, type]).toEqual(
        looks < fails ? [200, ''] : [500, '/problems/transaction-outcome-unknown'],
      );
    },
  );
});

it('a COMMIT that never came to a server that has not noticed keeps no lock, where the session can be found', async () => {
  await start([], 'row');
  await database.query(`INSERT INTO people (name) VALUES ('hot')`);
  let commits = 0;
  proxy.onRequest = (piece) => (piece.includes('COMMIT\0') && commits++ === 0 ? 'unnoticed' : 'pass');
  const done = host.transactions.run({ timeoutMs: 10_000 }, async (transaction) => {
    await transaction.query({ text: `UPDATE people SET data = '{}' WHERE name = 'hot'` });
    await transaction.query({ text: 'SELECT 1' });
  });
  await expect(done).resolves.toBeUndefined();
});

it.each(['40003', '08007', 'XX000'])(
  'a COMMIT that is done and answered with %s is asked for by its id',
  async (sqlState) => {
    await start([]);
    expect(await unit(failedWith(sqlState))).toBe('done');
    expect(await stored()).toBe(1);
  },
);

it.each(['40003', '08007', 'XX000'])(
  'a COMMIT or a single statement that is answered with %s by a server without ids is unknown',
  async (sqlState) => {
    await start(NO_IDS);
    expect(await unit(failedWith(sqlState))).toBe(TransactionOutcomeUnknownError.name);
    const held = proxy.holdAnswers(/INSERT INTO people/);
    void held.then(([answer]) => answer!.replace(failedWith(sqlState)));
    const single = host.transactions.runStatement({ text: INSERT }, { writes: true });
    await expect(single).rejects.toBeInstanceOf(TransactionOutcomeUnknownError);
  },
);

it('a server that will not commit is no collision', async () => {
  await start([]);
  await database.query(
    `CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'x' USING ERRCODE = 'XX000'; END $$`,
  );
  await database.query(
    'CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON people DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()',
  );
  expect(await unit('as it is')).toBe(DatabaseUnavailableError.name);
  expect(await stored()).toBe(0);
});

it('a table that is missing is named', async () => {
  await start([], 'row');
  await database.query('DROP TABLE transaction_outcome');
  const failed = host.transactions.run({}, (transaction) => transaction.query({ text: INSERT }));
  await expect(failed).rejects.toThrow(/transaction_outcome.*transactionMigrations/);
  expect(await stored()).toBe(0);
});

it('rows are kept for as long as they may be asked for, whenever their attempt began', async () => {
  await start([], 'row');
  const rows = OutcomeRows.of(host.dataSource);
  const old = '01900000-0000-7000-8000-000000000001';
  await database.query('INSERT INTO transaction_outcome (id) VALUES ($1)', [old]);
  await database.query(
    `INSERT INTO transaction_outcome (id, created_at) SELECT ('01900000-0000-7000-8000-0000000000' || n)::uuid, now() - interval '2 h' FROM generate_series(10, 50) n`,
  );
  await rows.prune();
  expect(await database.query('SELECT id FROM transaction_outcome')).toEqual([{ id: old }]);
  expect(await rows.resolve({ ...rows.next(), id: old }, undefined, 1000)).toBe('committed');
});
