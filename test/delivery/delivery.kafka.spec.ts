import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { randomOf } from '../support/random.js';
import { checkDelivery } from './delivery-check.js';
import { everyFault } from './faults.js';

const LONG_TO_RECOVER = ['service and broker', 'broker and database'];

let directory: string;
beforeEach(() => {
  mkdirSync('.data', { recursive: true });
  directory = mkdtempSync(path.resolve('.data/delivery-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

// @trap killed between the commit of the effect and that of the offset
// @trap killed before the commit
// @trap stopped (SIGSTOP) past its session, and then goes on as if nothing had been
// @trap the broker is killed under load
// @trap the database is killed under load, alone and together with the broker or a service
// @trap the broker or the database hangs for longer than a session, with its connections open
// @trap the instance that relays is killed before an event is sent, and before its row is removed
// @trap instances come and go under load
// @trap killed after the commit, before the reply
it('services, broker and database killed at every step lose nothing, apply nothing twice, and keep the order of each key', async () => {
  const counts = await checkDelivery({
    // All at once: what takes its time is the sessions of those that are killed.
    ...{ seed: 7, messages: 3000, seconds: 0, instances: 6, together: 100 },
    ...{ leaveOut: LONG_TO_RECOVER, directory },
  });
  expect(counts.violations).toEqual([]);
  // Each row of the table happened, and so did what is put in between.
  const names = everyFault(randomOf(0))
    .map(({ name }) => name)
    .filter((name) => !LONG_TO_RECOVER.includes(name));
  expect(counts.faults).toEqual(Object.fromEntries(names.map((name) => [name, 1])));
  expect(counts).toMatchObject({ rounds: 1, messages: 3000 });
  expect(counts.duplicates).toBeGreaterThan(100);
  expect(counts.poisonous).toBeGreaterThan(5);
  expect(counts.requests).toBeGreaterThan(50);
  expect(counts.hazards).toBeGreaterThan(10);
  expect(counts.nastyHeaders).toBeGreaterThan(50);
  expect(counts.answersLost).toBeGreaterThan(10);
  expect(counts.eventsSentAgain).toBeGreaterThan(0);
}, 300_000);
