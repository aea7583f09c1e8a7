import 'reflect-metadata';
import { mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { checkLinearizability } from './linearizability-check.js';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    instances: { type: 'string', default: '3' },
    'no-faults': { type: 'boolean', default: false },
    'stale-reads': { type: 'boolean', default: false },
    set: { type: 'string', multiple: true, default: [] },
  },
});
const [seconds, seed, instances] = [Number(values.seconds), Number(values.seed), Number(values.instances)];
const isVariable = (text: string) => /^\w+=/.test(text);
if (!(seconds > 0) || !Number.isInteger(seed) || !(instances >= 1) || !values.set.every(isVariable)) {
  console.error(
    'usage: npm run check:linearizability -- [--seconds 60] [--seed 7] [--instances 3] [--no-faults] [--stale-reads] [--set VARIABLE=value]',
  );
  process.exit(2);
}

const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interrupted.abort());

/** Of the violations, told at once. */
const SHOWN = 5;

const directory = mkdtempSync(path.resolve('.data/linearizability-'));
try {
  console.log(`seed ${seed}, ${seconds} s, ${instances} instances ${values.set.join(' ')}`);
  const { violations, ...counts } = await checkLinearizability({
    ...{ seed, seconds, instances, directory, signal: interrupted.signal },
    hasFaults: !values['no-faults'],
    showsStale: values['stale-reads'],
    environment: Object.fromEntries(values.set.map((text) => text.split(/=(.*)/s).slice(0, 2))),
  });
  console.log(JSON.stringify(counts, undefined, 2));
  console.log(`violations: ${violations.length}`);
  for (const violation of violations.slice(0, SHOWN)) console.log(violation);
  if (violations.length > 0) process.exitCode = 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}
