import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { closedPort, ServiceHome, type ServiceProcess } from '../support/service-process.js';
import { createDatabase } from '../support/test-database.js';

const MINUTES = 120_000;
const REQUESTS = 3000;
const AT_ONCE = 20;

interface Line {
  level: string;
  msg: string;
  route?: string;
  lines?: number;
  to?: string;
}

const home = duringTests(() => {
  const started = new ServiceHome();
  // Nothing can be written to the place of its data.
  writeFileSync(path.join(started.directory, '.data'), '');
  return Object.assign(started, { close: () => started.remove() });
});
const database = duringTests(() => createDatabase());

let service: ServiceProcess;
let url: string;

/** Starts it, with a log that keeps little. */
async function start(environment: Record<string, string> = {}): Promise<void> {
  const port = await closedPort();
  url = `http://127.0.0.1:${port}`;
  service = home.start({
    KAFKA: 'off',
    NODE_ENV: 'production',
    DATABASE_URL: database.url,
    PORT: String(port),
    LOG_BUFFER_BYTES: '65536',
    ...environment,
  });
  await eventually(() => fetch(`${url}/health/ready`).then(({ ok }) => ok, () => false), MINUTES); // prettier-ignore
}

/** Every line that has come as a whole. */
const lines = () =>
  service.stdout
    .slice(0, service.stdout.lastIndexOf('\n') + 1)
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line);
const requestsIn = (log: Line[]) => log.filter(({ msg, route }) => msg === 'request' && route === '/people');

/** How many were asked for people of the service that runs. */
let asked = 0;

async function ask(requests: number): Promise<number[]> {
  asked += requests;
  const statuses: number[] = [];
  const client = async () => {
    while (statuses.length < requests) {
      const at = statuses.push(0) - 1;
      const response = await fetch(`${url}/people?name=Ada`);
      await response.text();
      statuses[at] = response.status;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, client));
  return statuses;
}

// @trap whoever reads the log stops reading
it(
  'a reader of the log that stops stops nobody: all are answered, and what was dropped is counted once it reads on',
  async () => {
    await start();
    service.stopReading();
    const statuses = await ask(REQUESTS);
    expect([statuses.length, new Set(statuses)]).toEqual([REQUESTS, new Set([200])]);
    service.readOn();
    const dropped = await eventually(() => lines().find(({ lines: count }) => count !== undefined));
    expect(dropped).toMatchObject({
      level: 'warn',
      msg: 'lines of the log were dropped, as its reader did not take them',
    });
    // Each line is one that has come, or one that was counted.
    await eventually(() => requestsIn(lines()).length + dropped.lines! === REQUESTS);
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toContain(`\npeople_log_dropped_lines_total ${dropped.lines}\n`);
    expect(await ask(10)).toHaveLength(10);
    await eventually(() => requestsIn(lines()).length + dropped.lines! === REQUESTS + 10);
  },
  MINUTES,
);

it(
  'probes and scrapes are no lines until SIGUSR2 asks for more, and the level comes round to what it was',
  async () => {
    const probes = () => lines().filter(({ route }) => route === '/health/ready' || route === '/metrics');
    await (await fetch(`${url}/metrics`)).text();
    expect(probes()).toEqual([]);
    const levels: string[] = [];
    for (const level of ['debug', 'trace', 'info']) {
      service.signal('SIGUSR2');
      await eventually(() => lines().some(({ msg, to }) => /^the level/.test(msg) && to === level));
      levels.push(level);
      const before = probes().length;
      await (await fetch(`${url}/metrics`)).text();
      await ask(1);
      if (level !== 'info') await eventually(() => probes().length > before);
      else expect(probes()).toHaveLength(before);
    }
    expect(levels).toEqual(['debug', 'trace', 'info']);
  },
  MINUTES,
);

it(
  'production needs no directory that it can write to, shows no banner, and tells in the log where it is',
  () => {
    expect(service.stderr).toBe('');
    expect(readFileSync(path.join(home.directory, '.data'), 'utf8')).toBe('');
    expect(lines()).toContainEqual(expect.objectContaining({ msg: 'the service is running', http: url }));
  },
  MINUTES,
);

it(
  'what waits for the reader is written at the end',
  async () => {
    const dropped = lines().find(({ lines: count }) => count !== undefined)!.lines!;
    service.stopReading();
    expect(await ask(300)).toHaveLength(300);
    service.signal('SIGTERM');
    await eventually(() => service.hasEnded, MINUTES);
    service.readOn();
    expect((await service.ended).code).toBe(0);
    expect(requestsIn(lines()).length + dropped).toBe(asked);
  },
  MINUTES,
);

it(
  'the end of a process that fails has its line, behind those that waited',
  async () => {
    service = logging(1000, "throw new Error('nobody has caught this');");
    expect((await service.ended).code).toBe(1);
    expect(lines()).toHaveLength(1001);
    expect(lines().at(-1)).toMatchObject({ level: 'fatal', msg: 'the end' });
  },
  MINUTES,
);

it(
  'the end of a process whose log nobody reads any more comes all the same',
  async () => {
    service = logging(20_000, 'process.exit(3);');
    service.stopReading();
    await eventually(() => service.hasEnded, MINUTES);
    service.readOn();
    expect((await service.ended).code).toBe(3);
  },
  MINUTES,
);

/** A process of its own that logs, and then ends by itself. */
function logging(count: number, end: string): ServiceProcess {
  const script = `
      import { JsonLogger } from '${process.cwd()}/dist/src/operations/json-logger.js';
      const logger = new JsonLogger('info');
      for (let n = 0; n < ${count}; n++) logger.log('before ' + n);
      process.on('uncaughtExceptionMonitor', (err) => logger.fatal({ msg: 'the end', err }));
      ${end}`;
  return home.run([process.execPath, '--input-type=module', '-e', script]);
}
