import 'reflect-metadata';
import { mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { FAULTS } from './faults.js';
import { checkOperations } from './operations-check.js';
import { tableOf } from './report.js';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    faults: { type: 'string' },
  },
});
const [seconds, seed] = [Number(values.seconds), Number(values.seed)];
const faults = values.faults?.split(',').map((name) => name.trim());
const names = FAULTS.map(({ name }) => name);
if (!(seconds > 0) || !Number.isInteger(seed) || !(faults ?? []).every((name) => names.includes(name))) {
  console.error(
    `usage: npm run check:operations -- [--seconds 60] [--seed 7] [--faults '${names.join(',')}']`,
  );
  process.exit(2);
}

const interrupted = new AbortController();
// More than once where npm passes on what the terminal has sent to all.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interrupted.abort());

const directory = mkdtempSync(path.resolve('.data/operations-'));
const start = Date.now();
let isSound = false;
try {
  console.log(`seed ${seed}, faults of ${seconds} s`);
  const report = await checkOperations({
    ...{ seconds, seed, directory, signal: interrupted.signal },
    ...(faults && { faults }),
    onProgress: (message) => console.log(`${((Date.now() - start) / 1000).toFixed(0)} s: ${message}`),
  });
  console.log(tableOf(report));
  isSound = report.violations.length === 0;
} finally {
  if (isSound) rmSync(directory, { recursive: true, force: true });
  else {
    console.error(`The logs and the data are in ${directory}.`);
    process.exitCode = 1;
  }
}
