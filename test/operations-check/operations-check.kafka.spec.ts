import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { checkOperations } from './operations-check.js';

const FAULTS = ['read-only', 'rolling restart'];

let directory: string;
beforeEach(() => {
  mkdirSync('.data', { recursive: true });
  directory = mkdtempSync(path.resolve('.data/operations-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

// @trap instances are restarted one after another under clients that keep their connections
it('whoever asks one of three instances over HTTP or Kafka is told the truth while the database takes no writes, and is served while the instances are restarted', async () => {
  const { rows, violations } = await checkOperations({ seed: 7, seconds: 2, faults: FAULTS, directory });
  expect(violations).toEqual([]);
  expect(rows.map(({ fault }) => fault)).toEqual(['nothing', ...FAULTS]);
  for (const { requests, messages } of rows) {
    expect(requests.done).toBeGreaterThan(50);
    expect(messages).toBeGreaterThan(50);
  }
}, 180_000);
