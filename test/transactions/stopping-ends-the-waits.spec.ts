import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { ShuttingDownError } from '../../src/transactions/transaction-errors.js';
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
