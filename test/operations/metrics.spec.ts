import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';
import { startTcpProxyTo } from '../support/tcp-proxy.js';
import { createDatabase } from '../support/test-database.js';
import { parseExposition, valueOf } from './exposition.js';

const app = duringTests(() =>
  startPeopleApp({ TRANSACTION_ISOLATION_LEVEL: 'REPEATABLE READ', DB_POOL_SIZE: '3' }),
);

/** Value of the series that begins with `series`; undefined when there is none. */
async function read(series: string): Promise<number | undefined> {
  const text = await (await app.request('/metrics')).text();
  const line = text.split('\n').find((each) => each.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.split(' ').at(-1));
}
const requests = (method: string, route: string, status: number) =>
  read(`http_request_duration_seconds_count{method="${method}",route="${route}",status="${status}"}`);

describe('/metrics', () => {
  it("is in Prometheus' text format, with Node's own numbers", async () => {
    const response = await app.request('/metrics');
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    const families = parseExposition(await response.text());
    expect(valueOf(families, 'process_resident_memory_bytes')).toBeGreaterThan(0);
  });

  it('counts requests by the pattern of their route, so that ids make no series', async () => {
    const { id } = await app.people.create({ name: 'Ada' });
    await app.request(`/people/${id}`);
    await app.request(`/people/${id}`);
    await app.request('/people/no-uuid');
    await app.request('/people?name=Zaphod');
    await app.request('/no/such/path/Zaphod');
    await app.request(`/people/${id}`, { method: 'PUT' });
    // Counted once the answer is sent.
    await eventually(async () => (await requests('PUT', 'none', 405)) === 1);
    expect(await requests('GET', '/people/:id', 200)).toBe(2);
    expect(await requests('GET', '/people/:id', 400)).toBe(1);
    expect(await requests('GET', '/people', 200)).toBe(1);
    expect(await requests('GET', 'none', 404)).toBe(1);
    const text = await (await app.request('/metrics')).text();
    expect(text).not.toContain(id);
    expect(text).not.toContain('Zaphod');
    expect(text).toContain(
      'http_request_duration_seconds_bucket{le="0.1",method="GET",route="/people/:id",status="200"}',
    );
  });

  it('shows the connections of the pool, in states that add up, and how many wait for one, also while none is free', async () => {
    const pool = async () => {
      const families = parseExposition(await (await app.request('/metrics')).text());
      // What is in the database is asked for on a connection of its own.
      expect(valueOf(families, 'people_outbox_events')).toBe(0);
      expect(valueOf(families, 'people_pool_max_connections')).toBe(3);
      const of = (state: string) => valueOf(families, 'people_pool_connections', { state });
      expect(of('active')! + of('idle')!).toBe(of('open'));
      expect(of('waiting')).toBe(valueOf(families, 'people_pool_waiting_callers'));
      return { open: of('open'), idle: of('idle'), waiting: of('waiting') };
    };
    let release!: () => void;
    const released = new Promise<void>((resolve) => (release = resolve));
    const units = Array.from({ length: 5 }, () => app.transactions.run({}, () => released));
    await eventually(async () => (await pool()).open === 3);
    expect(await pool()).toEqual({ open: 3, idle: 0, waiting: 2 });
    release();
    await Promise.all(units);
    expect(await pool()).toEqual({ open: 3, idle: 3, waiting: 0 });
  });

  it('leave out the outbox while somebody has locked its table, and show what else is in the database', async () => {
    const outsider = new pg.Client(app.database.url);
    await outsider.connect();
    const scrape = async () => parseExposition(await (await app.request('/metrics')).text());
    try {
      await outsider.query('BEGIN; LOCK TABLE message_outbox IN ACCESS EXCLUSIVE MODE');
      const families = await eventually(async () => {
        const found = await scrape();
        return valueOf(found, 'people_outbox_events') === undefined && found;
      });
      expect(valueOf(families, 'people_metrics_source_up', { source: 'database' })).toBe(1);
      expect(valueOf(families, 'people_inbox_bytes')).toBeGreaterThan(0);
    } finally {
      await outsider.end();
    }
    await eventually(async () => valueOf(await scrape(), 'people_outbox_events') === 0);
  });

  it('counts the repetition of a unit of work that met a serialization failure', async () => {
    const { id } = await app.people.create({ name: 'Ada' });
    const retries = async () =>
      (await read('people_transaction_retries_total{code="40001",phase="statement"}')) ?? 0;
    const inTwoAttempts = async () =>
      (await read('people_transaction_attempts_bucket{le="2"}'))! -
      (await read('people_transaction_attempts_bucket{le="1"}'))!;
    const before = [await retries(), await inTwoAttempts()] as const;
    const outsider = new pg.Client(app.database.url);
    await outsider.connect();
    await outsider.query('BEGIN');
    await outsider.query(`UPDATE people SET name = 'outsider' WHERE id = $1`, [id]);
    const update = app.send('PATCH', `/people/${id}`, '{"data":{"a":1}}');
    await eventually(async () => {
      const [waiting] = await app.database.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
      return waiting?.n === 1;
    });
    await outsider.query('COMMIT');
    await outsider.end();
    expect(await (await update).json()).toEqual({ id, name: 'outsider', data: { a: 1 } });
    expect(await retries()).toBe(before[0] + 1);
    expect(await inTwoAttempts()).toBe(before[1] + 1);
    expect(await read('people_transaction_rollbacks_total{code="40001",phase="statement"}')).toBeGreaterThan(
      0,
    );
    expect(await read('people_transactions_total{outcome="committed"}')).toBeGreaterThan(0);
    expect(await read('people_pool_wait_seconds_count')).toBeGreaterThan(0);
  });

  it('counts units of work that fail, those that the work has ended apart from those that had no connection', async () => {
    const failed = async () => [
      await read('people_transactions_total{outcome="failed"}'),
      await read('people_transaction_failures_total{code="",phase="statement"}'),
    ];
    const [all, own = 0] = await failed();
    await expect(app.transactions.run({}, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(await failed()).toEqual([all! + 1, own + 1]);
  });
});

describe('while the database is away', () => {
  const database = duringTests(() => createDatabase());
  const proxy = duringTests(() => startTcpProxyTo(database.url));
  const cut = duringTests(() =>
    startPeopleApp({ DATABASE_URL: proxy.through(database.url), DB_ACQUIRE_TIMEOUT_MS: '1000' }, database),
  );
  const scrape = async () => parseExposition(await (await cut.request('/metrics')).text());
  const isUp = async () => valueOf(await scrape(), 'people_metrics_source_up', { source: 'database' }) === 1;

  it('metrics are answered without what is in it, and count what could not be done; then all of them', async () => {
    await eventually(isUp);
    const lost = { code: 'DATABASE_UNAVAILABLE', phase: 'begin' };
    const before = valueOf(await scrape(), 'people_transaction_failures_total', lost) ?? 0;
    await proxy.refuse();
    expect((await cut.request(`/people/${randomUUID()}`)).status).toBe(503);
    await eventually(async () => !(await isUp()));
    const families = await scrape();
    expect(valueOf(families, 'people_outbox_events')).toBeUndefined();
    expect(valueOf(families, 'people_dead_letters')).toBeUndefined();
    expect(valueOf(families, 'people_pool_connections', { state: 'idle' })).toBe(0);
    expect(valueOf(families, 'people_transaction_failures_total', lost)).toBeGreaterThan(before);
    await proxy.accept();
    await eventually(isUp);
    expect(valueOf(await scrape(), 'people_outbox_events')).toBe(0);
  });

  it('so they are where it says nothing', async () => {
    proxy.onClientData = () => 'swallow';
    await eventually(async () => !(await isUp()));
    proxy.onClientData = () => 'pass';
    await eventually(isUp);
  });
});
