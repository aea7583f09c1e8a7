import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { startEmbeddedKafka } from '../../src/dev/embedded-kafka.js';
import { eventually } from '../support/barrier.js';
import { processesOf, ServiceProcess, startDirectory } from '../support/service-process.js';
import { createDatabase } from '../support/test-database.js';

const run = promisify(execFile);
const { directory, remove } = startDirectory();
const started: ServiceProcess[] = [];
const start = (environment?: Record<string, string>, where = directory) => {
  const service = new ServiceProcess(where, environment);
  started.push(service);
  return service;
};
const ready = (http: string) =>
  eventually(async () => (await fetch(`${http}/health/ready`)).status === 200, 60_000);

afterAll(async () => {
  await Promise.all(started.map((service) => service.end()));
  expect(processesOf(directory)).toEqual([]);
  remove();
});

describe('with nothing configured', () => {
  it('starts its own PostgreSQL and Kafka, is there once, survives kill -9, and stops cleanly', async () => {
    let service = start();
    const id = await theThreePrintedCommandsWork(service);
    await startedTwiceItSaysSo(service);

    service.signal('SIGKILL');
    await service.exited;
    service = start();
    const { http } = await service.services();
    expect(await (await fetch(`${http}/people/${id}`)).json()).toMatchObject({ id, name: 'Ada' });
    await ready(http);

    await finishesWhatRunsOn('SIGINT', service, id);
    service = start();
    await finishesWhatRunsOn('SIGTERM', service, id);
  }, 240_000);

  it('a second signal ends at once, exit code 1, and leaves nothing behind', async () => {
    const service = start();
    const { databaseUrl } = await service.services();
    // A transaction of its own keeps the stop waiting: it can't end before the service is gone.
    const client = new pg.Client(databaseUrl);
    client.on('error', () => undefined);
    await client.connect();
    await client.query('BEGIN; LOCK TABLE people');
    const { http } = await service.services();
    const waiting = fetch(`${http}/people?name=x`).catch(() => 'cut');
    await eventually(async () => (await client.query(`SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'`)).rowCount); // prettier-ignore
    service.signal('SIGTERM');
    await eventually(() => service.output.includes('Stopping'));
    service.signal('SIGTERM');
    expect(await service.exited).toBe(1);
    await waiting;
    await eventually(() => processesOf(directory).length === 0);
  });

  it('a signal that comes while it starts stops what it had started', async () => {
    const early = start();
    await eventually(() => processesOf(directory).some((command) => command.includes('postgres')), 30_000);
    early.signal('SIGTERM');
    expect(await early.exited).toBe(0);
    expect(processesOf(directory)).toEqual([]);
  });

  it('a port that is taken is named, and what was started is stopped', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const refused = start({ PORT: String(port), KAFKA: 'off' });
    expect(await refused.exited).toBe(1);
    expect(refused.output).toContain(`PORT=${port}: another process listens there`);
    expect(processesOf(directory)).toEqual([]);
    await new Promise((resolve) => server.close(resolve));
  });

  it('without Java it serves HTTP and says how to give it a broker', async () => {
    // What the embedded PostgreSQL may need, and no java.
    const programs = path.join(directory, 'bin');
    mkdirSync(programs);
    for (const program of ['sh', 'ps', 'unshare'])
      symlinkSync(`/usr/bin/${program}`, path.join(programs, program));
    const alone = start({ PATH: programs });
    const { http, kafkaBrokers } = await alone.services();
    expect(kafkaBrokers).toEqual([]);
    expect(alone.output).toMatch(/Serving HTTP alone\. .*KAFKA_BROKERS=/);
    expect((await fetch(`${http}/people?name=x`)).status).toBe(200);
    await alone.end();
  });
});

describe('with servers of its own choice', () => {
  it('a bad environment is reported as a whole, before anything is opened', async () => {
    const { directory: empty, remove: removeEmpty } = startDirectory();
    const refused = start({ PORT: 'x', DB_POOL_SIZE: '0', NODE_ENV: 'production' }, empty);
    expect(await refused.exited).toBe(1);
    expect(refused.output).toContain('PORT: "x" is not accepted; expected a whole number from 0 to 65535');
    expect(refused.output).toContain(
      'DB_POOL_SIZE: "0" is not accepted; expected a whole number from 1 to 1000',
    );
    expect(existsSync(path.join(empty, '.data'))).toBe(false);
    removeEmpty();
  });

  it('a database that can’t be migrated ends the start with the reason', async () => {
    const database = await createDatabase('template0');
    await database.query('CREATE VIEW people AS SELECT 1 AS id');
    const refused = start({ DATABASE_URL: database.url, KAFKA: 'off' });
    expect(await refused.exited).toBe(1);
    expect(refused.output).toMatch(/could not be migrated[^]*because: column "name" does not exist/);
    await database.drop();
  });

  it('serves while its broker is away, is not ready, and becomes ready by itself', async () => {
    const { directory: elsewhere, remove: removeElsewhere } = startDirectory();
    const database = await createDatabase();
    const port = await freePort();
    const service = start({ DATABASE_URL: database.url, KAFKA_BROKERS: `127.0.0.1:${port}` });
    const { http } = await service.services();
    const response = await fetch(`${http}/health/ready`);
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({
      error: { kafka: { status: 'down', reason: expect.any(String) } },
    });
    expect((await fetch(`${http}/health/live`)).status).toBe(200);
    expect((await fetch(`${http}/people?name=x`)).status).toBe(200);
    const kafka = await startEmbeddedKafka({ directory: path.join(elsewhere, 'kafka'), port });
    await ready(http);
    await service.end();
    await kafka.stop();
    await database.drop();
    removeElsewhere();
  });
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function theThreePrintedCommandsWork(service: ServiceProcess): Promise<string> {
  const { http, databaseUrl, kafkaBrokers, pid } = await service.services();
  expect(pid).toBe(service.pid);
  expect(service.output).toContain(`${http}/docs`);
  expect(service.output).toContain(databaseUrl);
  expect(service.output).toContain(kafkaBrokers[0]);
  await ready(http);

  const commands = service.output.split('\n').map((line) => line.trim());
  const shell = (start: string) => run('/bin/sh', ['-c', commands.find((line) => line.startsWith(start))!]);
  const created = await shell('curl');
  const id = (JSON.parse(created.stdout) as { id: string }).id;
  const person = `{"id":"${id}","name":"Ada","data":{"n":18446744073709551615}}`;
  expect(created.stdout).toBe(person);
  expect((await shell('KAFKA_BROKERS=')).stdout).toBe(`${person}\n`);
  const client = new pg.Client(/psql '([^']+)'/.exec(service.output)![1]);
  await client.connect();
  expect((await client.query('SELECT id, name, data::text FROM people')).rows).toEqual([
    { id, name: 'Ada', data: '{"n":18446744073709551615}' },
  ]);
  await client.end();
  return id;
}

async function startedTwiceItSaysSo(service: ServiceProcess): Promise<void> {
  const second = start();
  expect(await second.exited).toBe(1);
  expect(second.output).toContain(`already running`);
  expect(second.output).toContain(String(service.pid));
  const { http } = await service.services();
  expect((await fetch(`${http}/people?name=Ada`)).status).toBe(200);
}

/** A request that waits for a row lock when the signal comes is answered before the process ends. */
async function finishesWhatRunsOn(
  signal: 'SIGINT' | 'SIGTERM',
  service: ServiceProcess,
  id: string,
): Promise<void> {
  const { http, databaseUrl } = await service.services();
  const client = new pg.Client(databaseUrl);
  await client.connect();
  await client.query('BEGIN');
  await client.query('SELECT FROM people WHERE id = $1 FOR UPDATE', [id]);
  const held = fetch(`${http}/people/${id}`, {
    method: 'PATCH',
    headers: { 'content-type': 'application/json' },
    body: `{"name":"${signal}"}`,
  });
  await eventually(async () => {
    const { rows } = await client.query(`SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'`);
    return rows.length > 0;
  });
  service.signal(signal);
  await eventually(() => service.output.includes('Stopping'));
  await client.query('COMMIT');
  await client.end();
  const response = await held;
  expect(response.status).toBe(200);
  expect(await response.json()).toMatchObject({ name: signal });
  expect(await service.exited).toBe(0);
  expect(processesOf(directory)).toEqual([]);
  expect(existsSync(path.join(directory, '.data/services.json'))).toBe(false);
}
