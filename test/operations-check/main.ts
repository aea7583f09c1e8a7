import 'reflect-metadata';
import { mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { FAULTS } from './faults.js';
import { checkOperations } from './operations-check.js';
import { tableOf } from './table.js';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    faults: { type: 'string' },
  },
});
const seconds = Number(values.seconds);
const faults = values.faults?.split(',').map((name) => name.trim());
const names = FAULTS.map(({ name }) => name);
if (!(seconds > 0) || !(faults ?? []).every((name) => names.includes(name))) {
  console.error(`usage: npm run check:operations -- [--seconds 60] [--faults '${names.join(',')}']`);
  process.exit(2);
}

const interrupted = new AbortController();
// More than once where npm passes on what the terminal has sent to all.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interrupted.abort());

const directory = mkdtempSync(path.resolve('.data/operations-'));
const start = Date.now();
let isSound = false;
try {
  const report = await checkOperations({
    ...{ seconds, directory, signal: interrupted.signal },
    ...(faults && { faults }),
    onProgress: (message) => console.log(`${((Date.now() - start) / 1000).toFixed(0)} s: ${message}`),
  });
  console.log(tableOf(report));
  isSound = report.violations.length === 0;
} finally {
  rmSync(directory, { recursive: true, force: true });
  if (!isSound) process.exitCode = 1;
}
