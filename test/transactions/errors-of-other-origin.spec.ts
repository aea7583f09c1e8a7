import pg from 'pg';
import { barrier, eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { poolOf } from '../support/people-app.js';
import { startTransactionsHost } from '../support/transactions-host.js';

const host = duringTests(() => startTransactionsHost());

const like = (properties: object, message = 'x') => Object.assign(new Error(message), properties);
const LOOK_ALIKES: [string, unknown][] = [
  ['a refused connection', like({ code: 'ECONNREFUSED', syscall: 'connect' })],
  [
    'a reset connection in its cause',
    new Error('mail could not be sent', { cause: like({ code: 'ECONNRESET' }) }),
  ],
  ['a broken pipe as its driverError', like({ driverError: like({ code: 'EPIPE' }) })],
  ['words that pg uses', new Error('timeout expired for this coupon')],
  ['other words that pg uses', new Error('Connection terminated unexpectedly')],
  ['a name that TypeORM uses', like({ name: 'QueryRunnerAlreadyReleasedError' })],
  ['what another client of the process throws', like({ severity: 'FATAL', code: '57P01' })],
  ['a serialization failure of somebody else’s', like({ severity: 'ERROR', code: '40001' })],
  ['a timeout of somebody else’s', like({ severity: 'ERROR', code: '57014' })],
  [
    'a failure that it makes up',
    Object.assign(new pg.DatabaseError('x', 1, 'error'), { severity: 'ERROR', code: '40P01' }),
  ],
  ['an AggregateError', new AggregateError([like({ code: 'ECONNREFUSED' })], 'all failed')],
];

it.each(LOOK_ALIKES)(
  'an error of the work’s own that looks like one of the database reaches the caller as it is: %s',
  async (_, error) => {
    let runs = 0;
    const lost: boolean[] = [];
    const codes: unknown[] = [];
    const options = {
      retryOn: ({ connectionLost, code }: { connectionLost: boolean; code: string | undefined }) => {
        lost.push(connectionLost);
        codes.push(code);
        return connectionLost || code !== undefined;
      },
    };
    for (const unit of [{}, options])
      await expect(
        host.transactions.run(unit, async () => {
          runs++;
          await host.count('made');
          throw error;
        }),
      ).rejects.toBe(error);
    expect({ runs, lost, codes }).toEqual({ runs: 2, lost: [false], codes: [undefined] });
    expect(await host.committed('made')).toBeUndefined();
  },
);

it('the error of a call that the work makes to something that is not there is the work’s, and its connection stays in use', async () => {
  const before = poolOf(host.dataSource).open;
  const unit = host.transactions.run({}, async () => {
    await host.count('called');
    await fetch('http://127.0.0.1:9/');
  });
  await expect(unit).rejects.toMatchObject({ name: 'TypeError', message: 'fetch failed' });
  expect(poolOf(host.dataSource).open).toBe(Math.max(1, before));
});

it('a connection that is lost decides, whatever the work makes of it', async () => {
  const kill = { text: 'SELECT pg_terminate_backend(pg_backend_pid())' };
  for (const handle of [
    () => undefined,
    () => {
      throw new Error('mine');
    },
  ])
    await expect(
      host.transactions.run({}, async (transaction) => {
        await host.count('lost');
        await transaction.query(kill).catch(handle);
      }),
    ).rejects.toMatchObject({ type: 'database-unavailable', cause: { code: '57P01' } });
  expect(await host.committed('lost')).toBeUndefined();
});

it('a query beside the unit of work that loses its connection is not promised to have changed nothing', async () => {
  const unit = host.transactions.run({}, async () => {
    await host.count('beside');
    await host.dataSource.query('SELECT pg_terminate_backend(pg_backend_pid())');
  });
  await expect(unit).rejects.toMatchObject({ name: 'QueryFailedError', driverError: { code: '57P01' } });
  expect(await host.committed('beside')).toBeUndefined();
});

it('a failure of another unit of work is none of the one around it', async () => {
  let runs = 0;
  const raise = { text: `DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '23505'; END $$` };
  const unit = host.transactions.run({ retryOn: ['23505'], maxAttempts: 3 }, async () => {
    runs++;
    await host.transactions.run({ propagation: 'REQUIRES_NEW', retryOn: [] }, (apart) => apart.query(raise));
  });
  await expect(unit).rejects.toMatchObject({ code: '23505' });
  expect(runs).toBe(1);
});

it('what a budget cuts off while its own statement_timeout would let it run on ends with its connection', async () => {
  const seen: string[] = [];
  const show = { text: `SELECT current_setting('statement_timeout') AS value` };
  const unit = host.transactions.run({ timeoutMs: 60_000 }, async (transaction) => {
    await transaction.query({ text: `SET LOCAL statement_timeout = '5s'` });
    seen.push((await transaction.query<{ value: string }>(show)).rows[0]!.value);
    await host.transactions.run({ propagation: 'NESTED' }, async (nested) => {
      await nested.query({ text: `SELECT set_config($1, $2, true)`, values: ['statement_timeout', '123ms'] });
      seen.push((await nested.query<{ value: string }>(show)).rows[0]!.value);
    });
  });
  await unit;
  expect(seen).toEqual(['5s', '123ms']);

  const begun = barrier(2);
  const late = host.transactions.run({ timeoutMs: 300 }, async (transaction) => {
    await transaction.query({ text: 'SET LOCAL statement_timeout = 0' });
    const sleeping = transaction.query({ text: 'SELECT pg_sleep(600)' });
    await begun();
    await sleeping;
  });
  await begun();
  await expect(late).rejects.toMatchObject({ type: 'transaction-timeout' });
  await eventually(() => poolOf(host.dataSource).borrowed === 0);
});
