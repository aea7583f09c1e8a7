import 'reflect-metadata';
import { mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { checkConsistency } from './consistency-check.js';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    restart: { type: 'string', default: 'clean' },
  },
});
const [seconds, seed] = [Number(values.seconds), Number(values.seed)];
if (!(seconds > 0) || !Number.isInteger(seed) || !['clean', 'crash'].includes(values.restart)) {
  console.error('usage: npm run check:consistency -- [--seconds 60] [--seed 7] [--restart clean|crash]');
  process.exit(2);
}

const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());

const directory = mkdtempSync(path.resolve('.data/consistency-'));
try {
  console.log(`seed ${seed}, ${seconds} s, restart: ${values.restart}`);
  const counts = await checkConsistency({
    seed,
    seconds,
    directory,
    signal: interrupted.signal,
    restart: values.restart as 'clean' | 'crash',
    onProgress: ({ violations, ...rest }) =>
      console.log(JSON.stringify({ ...rest, violations: violations.length })),
  });
  console.log(JSON.stringify(counts, undefined, 2));
  if (counts.violations.length > 0) process.exitCode = 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}
