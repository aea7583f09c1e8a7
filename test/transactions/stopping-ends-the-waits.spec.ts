import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { ShuttingDownError } from '../../src/transactions/transaction-errors.js';
import { eventually } from '../support/barrier.js';
import { poolOf } from '../support/people-app.js';
import { nextRetry } from '../support/retries.js';
import { startTransactionsHost } from '../support/transactions-host.js';

const AN_HOUR = 3_600_000;

it('an application that stops tries a unit of work again at once, and begins no other', async () => {
  const host = await startTransactionsHost({ settings: { backoff: () => AN_HOUR } });
  const stopped = nextRetry().then(() => host.app.close());
  const attempts = await host.transactions.run({}, async ({ attempt }) => {
    await host.count('stopping');
    await host.conflict(1);
    return [attempt, currentTransaction()!.attempt];
  });
  await stopped;
  expect(attempts).toEqual([2, 2]);
  expect(await host.committed('stopping')).toBe(1);
  const late = host.transactions.run({}, async () => undefined);
  await expect(late).rejects.toBeInstanceOf(ShuttingDownError);
  await host.database.drop();
});

it('a unit of work that waits for a connection past the deadline of stopping does not begin', async () => {
  const host = await startTransactionsHost({ poolSize: 1, settings: { drainTimeoutMs: 100 } });
  const open = async () =>
    (await host.database.query(`SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'nestjs-people'`)).length; // prettier-ignore
  let letGo!: () => void;
  const held = new Promise<void>((resolve) => (letGo = resolve));
  const begun: string[] = [];
  const begin = (name: string) =>
    host.transactions.run({}, async () => {
      await host.count(name);
      begun.push(name);
      await held;
    });
  const units = [begin('holds'), begin('waits')];
  const statement = host.transactions.runStatement({ text: `INSERT INTO counters VALUES ('waits, too', 1)` }, { writes: true }); // prettier-ignore
  await eventually(() => begun.length === 1 && poolOf(host.dataSource).waiting === 2);
  const closed = host.app.close();
  // The holder is cut; its work does not know that yet.
  await eventually(async () => (await open()) === 0);
  letGo();
  const outcomes = await Promise.allSettled([...units, statement]);
  await closed;
  expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
  expect(begun).toEqual(['holds']);
  expect(await host.database.query(`SELECT FROM counters WHERE name ~ 'holds|waits'`)).toEqual([]);
  await host.database.drop();
});
