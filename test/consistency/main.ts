import 'reflect-metadata';
import { mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { pgBouncerProblem, type PoolMode } from '../support/pgbouncer.js';
import { checkConsistency, type Restart, RESTARTS } from './consistency-check.js';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    restart: { type: 'string', default: 'clean' },
    pgbouncer: { type: 'string' },
    'without-ids': { type: 'boolean', default: false },
    apart: { type: 'boolean', default: false },
  },
});
const [seconds, seed] = [Number(values.seconds), Number(values.seed)];
const problem = pgBouncerProblem(values.pgbouncer);
if (
  problem ||
  !(seconds > 0) ||
  !Number.isInteger(seed) ||
  !RESTARTS.some((each) => each === values.restart)
) {
  console.error(
    problem ??
      'usage: npm run check:consistency -- [--seconds 60] [--seed 7] [--restart clean|crash|failover] [--pgbouncer session|transaction] [--without-ids] [--apart]',
  );
  process.exit(2);
}

const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());

/** Of the violations, told at once. */
const SHOWN = 40;

const directory = mkdtempSync(path.resolve('.data/consistency-'));
try {
  const between = values.pgbouncer ? `, through PgBouncer (${values.pgbouncer})` : '';
  console.log(`seed ${seed}, ${seconds} s, restart: ${values.restart}${between}`);
  const { violations, ...counts } = await checkConsistency({
    seed,
    seconds,
    directory,
    signal: interrupted.signal,
    restart: values.restart as Restart,
    withoutIds: values['without-ids'],
    apart: values.apart,
    ...(values.pgbouncer && { pgBouncer: values.pgbouncer as PoolMode }),
    onProgress: ({ violations, ...rest }) =>
      console.log(JSON.stringify({ ...rest, violations: violations.length })),
  });
  console.log(JSON.stringify(counts, undefined, 2));
  console.log(`violations: ${violations.length}`);
  for (const violation of violations.slice(0, SHOWN)) console.log(violation);
  if (violations.length > SHOWN) console.log(`and ${violations.length - SHOWN} more`);
  if (violations.length > 0) process.exitCode = 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}
