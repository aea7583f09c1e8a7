import pg from 'pg';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import type { PeopleApp } from '../support/people-app.js';

interface Health {
  status: string;
  error: Record<string, { status: string; reason: string }>;
  details: Record<string, { status: string; reason?: string }>;
}

describe('health of the service with Kafka', () => {
  let app: PeopleApp;
  let server: pg.Client;
  const peer = new KafkaPeer();

  beforeAll(async () => {
    server = new pg.Client(process.env.TEST_DATABASE_URL);
    await server.connect();
    app = await startKafkaApp(peer);
  });
  afterAll(async () => {
    await server.end();
    await peer.close();
    await app.close();
  });

  const ready = async (query = '') => {
    const response = await app.request(`/health/ready${query}`);
    return { code: response.status, health: (await response.json()) as Health };
  };
  const expectLive = async () => {
    const response = await app.request('/health/live');
    expect([response.status, await response.json()]).toEqual([
      200,
      expect.objectContaining({ status: 'ok' }),
    ]);
  };

  it('is ready when database, migrations and Kafka are', async () => {
    const { code, health } = await ready();
    expect(code).toBe(200);
    const up = { status: 'up' };
    const details = { service: up, database: up, migrations: up, people: up, kafka: up };
    expect(health).toEqual({ status: 'ok', info: details, error: {}, details });
    const messages = await ready('?group=messages');
    expect(messages).toEqual({ code: 200, health });
    const http = await ready('?group=http');
    expect([http.code, Object.keys(http.health.details)]).toEqual([
      200,
      ['service', 'database', 'migrations', 'people'],
    ]);
    await expectLive();
  });

  it.each(['?group=kafka', '?group=', '?group=http&group=messages'])(
    'knows no other groups, and names those there are: %s',
    async (query) => {
      const response = await app.request(`/health/ready${query}`);
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({ detail: 'group has to be one of: http, messages.' });
    },
  );

  it('is not ready but alive while the database lets nobody in, and ready again afterwards', async () => {
    const name = new URL(app.database.url).pathname.slice(1);
    await server.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    await server.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = $1 AND application_name = 'nestjs-people'`,
      [name],
    );
    const { code, health } = await ready();
    expect(code).toBe(503);
    expect(health.status).toBe('error');
    expect(health.error.database?.reason).toMatch(/terminat|not currently accepting connections/i);
    expect(health.details.kafka).toEqual({ status: 'up' });
    await expectLive();

    const refused = await app.request('/people?name=Ada');
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1']);
    expect(await refused.json()).toMatchObject({ type: '/problems/database-unavailable' });

    await server.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
    expect((await ready()).code).toBe(200);
    expect((await app.request('/people?name=Ada')).status).toBe(200);
  });

  it('is not ready while a migration is pending, and names the way out', async () => {
    const rows = await app.database.query<{ timestamp: string; name: string }>(
      'DELETE FROM migrations RETURNING timestamp, name',
    );
    const { code, health } = await ready();
    expect(code).toBe(503);
    expect(health.error).toEqual({
      migrations: { status: 'down', reason: 'pending; run npm run migration:run' },
    });
    await expectLive();
    for (const { timestamp, name } of rows) {
      await app.database.query('INSERT INTO migrations (timestamp, name) VALUES ($1, $2)', [timestamp, name]);
    }
    expect((await ready()).code).toBe(200);
  });
});
