import type { ReadinessSource } from '../../src/operations/health/readiness.js';
import { READINESS_SOURCES } from '../../src/operations/health/readiness.js';
import { asOrdinaryRole, dropRole } from '../people/whose-fault.cases.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { startLossyProxy } from '../support/lossy-proxy.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';
import { closedPort } from '../support/service-process.js';
import { startTcpProxyTo } from '../support/tcp-proxy.js';
import { openDatabase } from '../support/test-database.js';

interface Health {
  status: string;
  info: Record<string, { status: string; reason?: string }>;
  error: Record<string, { status: string; reason?: string }>;
  details: Record<string, { status: string; reason?: string }>;
}

const app = duringTests(() => startPeopleApp({ DB_POOL_SIZE: '2', DB_ACQUIRE_TIMEOUT_MS: '20000' }));

async function ready(of: { request(path: string): Promise<Response> } = app, query = '') {
  const response = await of.request(`/health/ready${query}`);
  return { code: response.status, health: (await response.json()) as Health };
}

// @trap every connection waits for a lock
it('a pool whose connections all wait is told as such, and is no database that is down', async () => {
  expect((await ready()).code).toBe(200);
  const holder = await openDatabase(app.database.url);
  await holder.query('BEGIN');
  await holder.query('LOCK TABLE people');
  const requests = Array.from({ length: 25 }, () => app.send('POST', '/people', '{"name":"Ada"}'));
  await eventually(() => poolOf(app.dataSource).waiting > 0);
  const { code, health } = await ready();
  expect({ code, health }).toMatchObject({ code: 200, health: { status: 'ok', error: {} } });
  expect(health.details.database).toEqual({ status: 'up' });
  expect(health.details.pool).toEqual({
    status: 'down',
    reason: expect.stringMatching(/^pool exhausted: all 2 connections are taken, and \d+ callers wait/),
  });
  await holder.query('COMMIT');
  await holder.drop();
  expect((await Promise.all(requests)).map(({ status }) => status)).toEqual(Array(25).fill(201));
  expect((await ready()).health.details.pool).toBeUndefined();
});

it('probes that come at once are one look, on a connection beside the pool that ends with it', async () => {
  const proxy = await startLossyProxy(app.database.url);
  let questions = 0;
  proxy.onRequest = (piece) => {
    if (piece.includes('SHOW transaction_read_only')) questions++;
    return 'pass';
  };
  const own = await startPeopleApp({ DB_POOL_SIZE: '1' }, { ...app.database, url: proxy.url });
  const connections = async () => {
    const sql = `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'nestjs-people%'`;
    return (await app.database.query<{ n: number }>(sql))[0]!.n;
  };
  const before = await connections();
  try {
    const answers = await Promise.all(Array.from({ length: 50 }, () => ready(own)));
    expect(new Set(answers.map(({ code }) => code))).toEqual(new Set([200]));
    // Some may come when the first look has ended already.
    expect(questions).toBeLessThan(10);
    for (let n = 0; n < 5; n++) expect((await ready(own)).code).toBe(200);
    await eventually(async () => (await connections()) === before);
    // One that somebody ends while it is asked says nothing of the database: another is asked.
    const cut = new Set<string>();
    proxy.onRequest = (piece) => {
      const question = ['SHOW transaction_read_only', '"migrations"'].find((text) => piece.includes(text));
      if (question === undefined || cut.has(question)) return 'pass';
      cut.add(question);
      return 'unsent';
    };
    expect(await ready(own)).toMatchObject({ code: 200, health: { error: {} } });
    expect(cut.size).toBe(2);
  } finally {
    await own.close();
    await proxy.close();
  }
});

it('a database that says nothing is answered for within the limit, and is up again once it answers', async () => {
  const proxy = await startTcpProxyTo(app.database.url);
  const own = await startPeopleApp({}, { ...app.database, url: proxy.through(app.database.url) });
  try {
    expect((await ready(own)).code).toBe(200);
    proxy.onClientData = () => 'swallow';
    const { code, health } = await ready(own);
    expect(code).toBe(503);
    expect(health.error.database).toEqual({ status: 'down', reason: 'no answer within 1000 ms' });
    proxy.onClientData = () => 'pass';
    expect((await ready(own)).code).toBe(200);
  } finally {
    await own.close();
    await proxy.close();
  }
});

it('a connection of the probe that was ended is made anew, and makes nothing unready', async () => {
  expect((await ready()).code).toBe(200);
  await app.database.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'nestjs-people'`,
  );
  expect((await ready()).code).toBe(200);
});

it('a database that lets nobody in any more is told once no connection is left from before', async () => {
  const ordinary = await asOrdinaryRole(app.database);
  const own = await startPeopleApp({}, await openDatabase(ordinary.url));
  try {
    expect((await ready(own)).code).toBe(200);
    await app.database.query(`ALTER ROLE ${ordinary.role} PASSWORD 'another'`);
    expect((await ready(own)).code).toBe(200);
    // Whoever needs a new one is let in no more.
    await app.database.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${ordinary.role}'`,
    );
    const told = await eventually(async () => {
      const { code, health } = await ready(own);
      return code === 503 && health.error.database?.reason;
    });
    expect(told).toMatch(/password authentication failed/);
  } finally {
    await own.close();
    await own.database.drop();
    await dropRole(app.database, ordinary.role);
  }
});

describe('a broker that is away', () => {
  it('is told and leaves HTTP ready, and makes the group of messages unready', async () => {
    const own = await startPeopleApp({ KAFKA_BROKERS: `127.0.0.1:${await closedPort()}` });
    try {
      const reason = async (query: string) => (await ready(own, query)).health.details.kafka?.reason;
      await eventually(async () => /ECONNREFUSED/.test((await reason('')) ?? ''));
      const { code, health } = await ready(own);
      const kafka = { status: 'down', reason: expect.stringContaining('ECONNREFUSED') };
      expect({ code, health }).toMatchObject({
        code: 200,
        health: { status: 'ok', error: {}, info: { kafka }, details: { kafka } },
      });
      expect(await ready(own, '?group=messages')).toMatchObject({
        code: 503,
        health: { status: 'error', error: { kafka }, details: { database: { status: 'up' } } },
      });
    } finally {
      await own.close();
    }
  });

  it('makes it unready as a whole where READINESS_GROUPS asks for that', async () => {
    const own = await startPeopleApp({
      KAFKA_BROKERS: `127.0.0.1:${await closedPort()}`,
      READINESS_GROUPS: 'http,messages',
    });
    try {
      expect(await ready(own)).toMatchObject({ code: 503, health: { error: { kafka: { status: 'down' } } } });
      expect((await ready(own, '?group=http')).code).toBe(200);
    } finally {
      await own.close();
    }
  });
});

it('a source that takes too long is told as such, and the others as they are', async () => {
  const sources = app.app.get<ReadinessSource[]>(READINESS_SOURCES, { strict: false });
  sources.push({ name: 'slow', unavailableReason: () => new Promise(() => undefined) });
  try {
    expect(await ready()).toMatchObject({
      code: 503,
      health: {
        error: { slow: { reason: 'no answer within 1000 ms' } },
        info: { database: { status: 'up' } },
      },
    });
  } finally {
    sources.pop();
  }
  expect((await ready()).code).toBe(200);
});
