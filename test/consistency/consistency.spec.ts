import { mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { checkConsistency } from './consistency-check.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(path.resolve('.data/consistency-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

it('transfers under kills, cut COMMITs and a restart are there exactly when they were reported as done', async () => {
  const counts = await checkConsistency({ seed: 20, seconds: 12, directory, restart: 'clean' });
  expect(counts.violations).toEqual([]);
  expect(counts.unknown).toBe(0);
  // The faults were there, and so was the work.
  expect(counts.restarts).toBe(1);
  expect(counts.backendsKilled).toBeGreaterThan(10);
  expect(counts.cutBeforeCommit).toBeGreaterThan(5);
  expect(counts.cutAfterCommit).toBeGreaterThan(5);
  expect(counts.done).toBeGreaterThan(100);
}, 120_000);

it('after a crash of the server, what was reported as done is there, and what was reported as failed is not', async () => {
  const counts = await checkConsistency({ seed: 21, seconds: 8, directory, restart: 'crash' });
  // A COMMIT that the crash met may be unknown: the server itself has forgotten.
  expect(counts.violations).toEqual([]);
  expect(counts.restarts).toBe(1);
  expect(counts.done).toBeGreaterThan(100);
}, 120_000);
