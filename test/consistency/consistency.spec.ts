import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { describeWithPgBouncer, POOL_MODES } from '../support/pgbouncer.js';
import { checkConsistency, type Counts } from './consistency-check.js';

let directory: string;
beforeEach(() => {
  mkdirSync('.data', { recursive: true });
  directory = mkdtempSync(path.resolve('.data/consistency-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** The faults were there, and so was the work. */
function expectFaultsAndWork({ restarts, backendsKilled, lost, transfers, http }: Counts): void {
  expect(restarts).toBe(1);
  expect(backendsKilled).toBeGreaterThan(5);
  // The seed fixes what is chosen, not when: of each kind there are some in a longer run.
  const { COMMIT, statement, batch, import: imports } = lost.answers;
  expect(COMMIT + statement + batch + imports + lost.toldByPooler).toBeGreaterThan(0);
  expect(transfers.done).toBeGreaterThan(20);
  expect(http.done).toBeGreaterThan(20);
  expect(http.refused).toBeGreaterThan(0);
}

it('what was told of transfers and of people written over HTTP is what is there, under kills, losses and a restart', async () => {
  const counts = await checkConsistency({ seed: 20, seconds: 12, directory, restart: 'clean' });
  expect(counts.violations).toEqual([]);
  // Of every COMMIT that was lost the server has told, once it was there.
  expect(counts.transfers.unknown).toBe(0);
  expectFaultsAndWork(counts);
}, 120_000);

it('after a crash of the server, what was told as done is there, and what was told as failed is not', async () => {
  const counts = await checkConsistency({ seed: 21, seconds: 8, directory, restart: 'crash' });
  // A COMMIT that the crash met may be unknown: the server itself has forgotten.
  expect(counts.violations).toEqual([]);
  expectFaultsAndWork(counts);
}, 120_000);

it('over a failover, what was told as done is there, and what was told as failed is not', async () => {
  const counts = await checkConsistency({ seed: 24, seconds: 10, directory, restart: 'failover' });
  // What became of a COMMIT that the primary took with it, the standby may not know.
  expect(counts.violations).toEqual([]);
  expectFaultsAndWork(counts);
}, 120_000);

it('on a server without transaction ids, a row tells what became of each COMMIT', async () => {
  const counts = await checkConsistency({
    ...{ seed: 23, seconds: 10, directory, restart: 'clean', withoutIds: true },
  });
  expect(counts.violations).toEqual([]);
  expect(counts.transfers.unknown).toBe(0);
  expectFaultsAndWork(counts);
}, 120_000);

describeWithPgBouncer('with PgBouncer in between', () => {
  it.each(POOL_MODES)(
    'what was told is what is there, whichever side of it loses something (%s pooling)',
    async (pgBouncer) => {
      const counts = await checkConsistency({
        seed: 22,
        seconds: 10,
        directory,
        restart: 'clean',
        pgBouncer,
      });
      expect(counts.violations).toEqual([]);
      expectFaultsAndWork(counts);
    },
    120_000,
  );
});
