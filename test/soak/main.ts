import 'reflect-metadata';
import { parseArgs } from 'node:util';
import { checkSoak } from './soak-check.js';

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '600' } },
});
const seconds = Number(values.seconds);
if (!(seconds > 0)) {
  console.error('usage: npm run check:soak -- [--seconds 600]');
  process.exit(2);
}
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interrupted.abort());

const start = Date.now();
const counts = await checkSoak({
  seconds,
  slowUploads: 200,
  slowReaders: 200,
  idle: 1000,
  messageEveryMs: 20,
  heapMegabytes: 256,
  residentMegabytes: 700,
  signal: interrupted.signal,
  onProgress: (message) => console.log(`${((Date.now() - start) / 1000).toFixed(0)} s: ${message}`),
});
console.log(JSON.stringify(counts, undefined, 2));
if (counts.violations.length > 0) process.exitCode = 1;
