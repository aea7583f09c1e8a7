import { once } from 'node:events';
import { connect } from 'node:net';
import { eventually } from '../support/barrier.js';
import { ServiceHome, type ServiceProcess } from '../support/service-process.js';
import { startTcpProxyTo, type TcpProxy } from '../support/tcp-proxy.js';
import { createDatabase, openDatabase, type TestDatabase } from '../support/test-database.js';

const MINUTES = 120_000;

let home: ServiceHome;
let database: TestDatabase;
let proxy: TcpProxy | undefined;
beforeAll(async () => {
  home = new ServiceHome();
  database = await createDatabase();
});
afterEach(async () => {
  await proxy?.close();
  proxy = undefined;
});
afterAll(async () => {
  await home.remove();
  await database.drop();
});

const start = (environment: Record<string, string> = {}) =>
  home.start({ KAFKA: 'off', DATABASE_URL: database.url, SHUTDOWN_TIMEOUT_MS: '4000', ...environment });

/** A connection of the service's, and what it has received. */
async function connected(service: ServiceProcess, request = '') {
  const { port } = new URL((await service.services()).http);
  const socket = connect(Number(port), '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write(request);
  return socket;
}

it(
  'connections without a request do not hold up stopping: those that are kept alive, and those that never asked',
  async () => {
    const service = start();
    const silent = await connected(service);
    const halfAsked = await connected(service, 'GET /people/x HTTP/1.1\r\nHost: ');
    const kept = await connected(service, 'GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await once(kept, 'data');
    service.signal('SIGTERM');
    const { code, stderr } = await service.ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.not.stringContaining('did not') });
    for (const socket of [silent, halfAsked, kept]) socket.destroy();
  },
  MINUTES,
);

it(
  'an answer that nobody reads is cut at the deadline and told, and the exit code is 1',
  async () => {
    await database.query(
      `INSERT INTO people (name, data) SELECT 'many', json_build_object('text', repeat('x', 10000)) FROM generate_series(1, 3000)`,
    );
    const service = start();
    const reader = await connected(
      service,
      'GET /people?name=many HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n',
    );
    await once(reader, 'data');
    reader.pause();
    service.signal('SIGTERM');
    const { code, stderr } = await service.ended;
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringContaining('HTTP requests that were cut: 1.'),
    });
    reader.destroy();
  },
  MINUTES,
);

it(
  'a database that hangs is left at the deadline and told, and the exit code is 1',
  async () => {
    proxy = await startTcpProxyTo(database.url);
    const service = start({ DATABASE_URL: proxy.through(database.url) });
    const { http } = await service.services();
    expect((await fetch(`${http}/people?name=nobody`)).status).toBe(200);
    let swallowed = 0;
    proxy.onClientData = () => {
      swallowed++;
      return 'swallow';
    };
    const request = fetch(`${http}/people?name=nobody`).catch(() => undefined);
    await eventually(() => swallowed > 0);
    service.signal('SIGTERM');
    const { code, stderr } = await service.ended;
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/Units of work that were cut: 1|What did not end: the database/),
    });
    await request;
  },
  MINUTES,
);

it(
  'a start that waits for another instance’s migrations is given up at the deadline, and says what it was at',
  async () => {
    // Where nothing is pending nobody waits.
    const empty = await createDatabase('template0');
    const holder = await openDatabase(empty.url);
    await holder.query('SELECT pg_advisory_lock(7365616412)');
    const service = start({ DATABASE_URL: empty.url, SHUTDOWN_TIMEOUT_MS: '1000' });
    await service.says('migrating the database');
    service.signal('SIGTERM');
    const { code, stderr } = await service.ended;
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringContaining('What did not end: migrating the database'),
    });
    await holder.drop();
    await empty.drop();
  },
  MINUTES,
);
