import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { checkOperations } from './operations-check.js';

const FAULTS = ['broker paused', 'backends killed', 'rolling restart'];

let directory: string;
beforeEach(() => {
  mkdirSync('.data', { recursive: true });
  directory = mkdtempSync(path.resolve('.data/operations-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

// @trap instances are restarted one after another under clients that keep their connections
it('whoever asks one of three instances over HTTP or Kafka is told the truth, and served, while they are restarted, backends are killed and the broker hangs', async () => {
  const { rows, violations } = await checkOperations({ seed: 7, seconds: 3, faults: FAULTS, directory });
  expect(violations).toEqual([]);
  expect(rows.map(({ fault }) => fault)).toEqual(['nothing', ...FAULTS]);
  for (const { requests, messages } of rows) {
    expect(requests.done).toBeGreaterThan(50);
    expect(messages).toBeGreaterThan(50);
  }
}, 180_000);
