import 'reflect-metadata';
import { mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { KAFKA_CLIENTS } from '../../src/messaging/kafka/clients.js';
import { pgBouncerProblem, type PoolMode } from '../support/pgbouncer.js';
import { checkDelivery } from './delivery-check.js';

const { values } = parseArgs({
  options: {
    messages: { type: 'string', default: '20000' },
    seconds: { type: 'string', default: '0' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    instances: { type: 'string', default: '2' },
    together: { type: 'string', default: '1' },
    client: { type: 'string', default: 'kafkajs' },
    pgbouncer: { type: 'string' },
    apart: { type: 'boolean', default: false },
  },
});
const [messages, seconds, seed, instances, together] = [
  ...[values.messages, values.seconds, values.seed, values.instances, values.together].map(Number),
] as [number, number, number, number, number];
const atLeast = (least: number) => (value: number) => Number.isInteger(value) && value >= least;
const client = KAFKA_CLIENTS.find((name) => name === values.client);
const problem = pgBouncerProblem(values.pgbouncer);
if (
  problem ||
  !client ||
  ![messages, together].every(atLeast(1)) ||
  ![seconds, seed].every(atLeast(0)) ||
  !atLeast(2)(instances)
) {
  console.error(
    problem ??
      'usage: npm run check:delivery -- [--messages 20000] [--seconds 0] [--seed 7] [--instances 2] [--together 1] [--client kafkajs] [--pgbouncer session|transaction] [--apart]',
  );
  process.exit(2);
}

const interrupted = new AbortController();
// More than once where npm passes on what the terminal has sent to all.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interrupted.abort());

const directory = mkdtempSync(path.resolve('.data/delivery-'));
const start = Date.now();
let isSound = false;
try {
  const between = values.pgbouncer ? `, through PgBouncer (${values.pgbouncer})` : '';
  console.log(
    `seed ${seed}, ${messages} messages, ${instances} instances with ${client}, rounds are begun for ${seconds} s${between}`,
  );
  const counts = await checkDelivery({
    ...{ messages, seconds, seed, instances, together, client, directory, apart: values.apart },
    ...(values.pgbouncer && { pgBouncer: values.pgbouncer as PoolMode }),
    signal: interrupted.signal,
    onProgress: (message) => console.log(`${((Date.now() - start) / 1000).toFixed(1)} s: ${message}`),
  });
  console.log(JSON.stringify(counts, undefined, 2));
  isSound = counts.violations.length === 0;
} finally {
  if (isSound) rmSync(directory, { recursive: true, force: true });
  else {
    console.error(`The logs and the data are in ${directory}.`);
    process.exitCode = 1;
  }
}
