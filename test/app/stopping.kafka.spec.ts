import { existsSync } from 'node:fs';
import pg from 'pg';
import { eventually } from '../support/barrier.js';
import { ServiceHome, type ServiceProcess } from '../support/service-process.js';

const MINUTES = 240_000;
const headers = { 'content-type': 'application/json' };

let home: ServiceHome;
let holder: pg.Client | undefined;
beforeAll(() => {
  home = new ServiceHome();
});
afterEach(() => holder?.end().catch(() => undefined));
afterAll(() => home.remove());

const expectNothingLeft = (where = home) => {
  expect(where.pids()).toEqual([]);
  expect(existsSync(where.servicesFile)).toBe(false);
};

it(
  'a signal that comes during the first start stops what was started, and the next start goes well',
  async () => {
    const fresh = new ServiceHome();
    const service = fresh.start();
    await service.says('downloading Apache Kafka');
    service.signal('SIGTERM');
    const { code, stderr } = await service.ended;
    expect({ code, stderr }).toMatchObject({ code: 0, stderr: expect.stringContaining('Stopping') });
    expect(stderr).not.toMatch(/did not start|Serving HTTP alone|People is running/);
    expectNothingLeft(fresh);

    const next = fresh.start();
    await next.services();
    next.signal('SIGTERM');
    expect((await next.ended).code).toBe(0);
    expectNothingLeft(fresh);
    await fresh.remove();
  },
  MINUTES,
);

// @trap SIGTERM under load
it.each(['SIGINT', 'SIGTERM'] as const)(
  '%s finishes and answers what runs, then stops everything and exits 0',
  async (signal) => {
    const service = home.start();
    const { http, people } = await holdTwoPeople(service);
    const request = update(http, people[0]!, signal);
    const message = sendMessage('people.update', `{"id":"${people[1]}","name":"${signal}"}`);
    await untilWaiting(2);

    service.signal(signal);
    await service.says('Stopping');
    // Load balancers are told at once, while what runs still waits for the lock.
    await eventually(async () => (await fetch(`${http}/health/ready`)).status === 503);
    await holder!.query('COMMIT');
    await holder!.end();

    const response = await request;
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ name: signal });
    const reply = `{"id":"${people[1]}","name":"${signal}","data":null}\n`;
    // The broker may be gone before the client has cleaned up after itself, so its exit code says nothing.
    expect((await message.ended).stdout).toBe(reply);
    expect((await service.ended).code).toBe(0);
    expectNothingLeft();
  },
  MINUTES,
);

// @trap a second SIGTERM
it(
  'a second signal ends it at once with exit code 1, and leaves no embedded server',
  async () => {
    const service = home.start();
    const { http, people } = await holdTwoPeople(service);
    const request = update(http, people[0]!, 'never').catch(() => 'cut off');
    await untilWaiting(1);
    const pids = home.pids();

    service.signal('SIGTERM');
    await service.says('Stopping');
    // Again and again, for two in the same moment count as one: see SAME_PRESS_MS.
    await eventually(() => {
      service.signal('SIGTERM');
      return service.hasEnded;
    });
    expect((await service.ended).code).toBe(1);
    expect(await request).toBe('cut off');
    expect(pids.length).toBeGreaterThan(3);
    await eventually(() => home.pids().length === 0);
    expectNothingLeft();
  },
  MINUTES,
);

// @trap stopping takes longer than its deadline
it(
  'what does not end before the deadline of stopping is cut and told, everything is stopped, and the exit code is 1',
  async () => {
    const service = home.start();
    const { http, people } = await holdTwoPeople(service);
    const request = update(http, people[0]!, 'never').catch(() => undefined);
    const message = sendMessage('people.update', `{"id":"${people[1]}","name":"later"}`);
    await untilWaiting(2);
    service.signal('SIGTERM');
    const { code, stderr } = await service.ended;
    expect(code).toBe(1);
    expect(stderr).toContain('The service did not stop as it should.');
    expect(stderr).toContain('Units of work that were cut: 2; messages that come again: 1.');
    expect((await request)?.status).not.toBe(200);
    expectNothingLeft();
    message.signal('SIGKILL');

    const next = home.start();
    const { http: nextHttp } = await next.services();
    await eventually(async () => {
      const response = await fetch(`${nextHttp}/people/${people[1]}`);
      return ((await response.json()) as { name: string }).name === 'later';
    }, 60_000);
    next.signal('SIGTERM');
    expect((await next.ended).code).toBe(0);
  },
  MINUTES,
);

/** Makes two people, and locks their rows from a connection of the test's own. */
async function holdTwoPeople(service: ServiceProcess): Promise<{ http: string; people: string[] }> {
  const { http, databaseUrl } = await service.services();
  const ready = async () => (await fetch(`${http}/health/ready?group=messages`)).status === 200;
  await eventually(ready, 120_000);
  const people: string[] = [];
  for (const name of ['Ada', 'Grace']) {
    const response = await fetch(`${http}/people`, { method: 'POST', headers, body: `{"name":"${name}"}` });
    people.push(((await response.json()) as { id: string }).id);
  }
  holder = new pg.Client(databaseUrl);
  holder.on('error', () => undefined);
  await holder.connect();
  await holder.query('BEGIN');
  await holder.query('SELECT FROM people WHERE id = ANY($1::uuid[]) FOR UPDATE', [people]);
  return { http, people };
}

const untilWaiting = (count: number) =>
  eventually(async () => {
    // Within a transaction the server shows the sessions that there were when it was first asked.
    await holder!.query('SELECT pg_stat_clear_snapshot()');
    const waiting = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
    return (await holder!.query(waiting)).rowCount === count;
  }, 30_000);

const update = (http: string, id: string, name: string) =>
  fetch(`${http}/people/${id}`, { method: 'PATCH', headers, body: `{"name":"${name}"}` });

const sendMessage = (topic: string, value: string) =>
  home.run([process.execPath, 'examples/send-message.mjs', topic, value]);
