import path from 'node:path';
import { startEmbeddedKafka } from '../../src/dev/embedded-kafka.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { closedPort, ServiceHome, takePort } from '../support/service-process.js';
import { createDatabase } from '../support/test-database.js';

const MINUTES = 240_000;

let home: ServiceHome;
const database = duringTests(() => createDatabase());
beforeEach(() => {
  home = new ServiceHome();
});
afterEach(() => home.remove());

describe('a start that cannot succeed says why and what to do, exits 1 and leaves nothing', () => {
  afterEach(() => expect(home.pids()).toEqual([]));

  it.each<[string, Record<string, string>, string[]]>([
    [
      'values that are not accepted',
      { PORT: 'x', DB_POOL_SIZE: '0', DATABASE_URL: 'mysql://u:hidden@h/d', LOG_LEVEL: 'loud' },
      [
        'PORT: "x" is not accepted; expected a whole number from 0 to 65535',
        'DB_POOL_SIZE: "0" is not accepted; expected a whole number from 1 to 1000',
        'DATABASE_URL: its value is not accepted; expected postgres://',
        'LOG_LEVEL: "loud" is not accepted; expected fatal, error, warn',
      ],
    ],
    [
      'production without servers',
      { NODE_ENV: 'production' },
      ['DATABASE_URL: missing; in production set it', 'KAFKA_BROKERS: missing; in production set it'],
    ],
    [
      'an open door that nobody chose',
      { HOST: '0.0.0.0' },
      ['AUTH: missing; HOST=0.0.0.0', 'AUTH=jwt, or AUTH=none'],
    ],
  ])('%s, before anything is opened', async (_case, environment, texts) => {
    const { code, stderr } = await home.start(environment).ended;
    expect(code).toBe(1);
    for (const text of texts) expect(stderr).toContain(text);
    expect(stderr).not.toMatch(/hidden|^ +at /m);
    expect(home.hasData).toBe(false);
  });

  it('a port that is taken', async () => {
    const { port, close } = await takePort();
    const { code, stderr } = await home.start({
      DATABASE_URL: database.url,
      KAFKA: 'off',
      PORT: String(port),
    }).ended;
    await close();
    expect(code).toBe(1);
    expect(stderr).toContain(`PORT=${port}: another process listens there; stop it or choose another PORT.`);
  });

  it('a database that cannot be reached', async () => {
    const address = `127.0.0.1:${await closedPort()}`;
    const url = `postgres://people:hidden@${address}/people`;
    const { code, stderr, stdout } = await home.start({ DATABASE_URL: url, KAFKA: 'off' }).ended;
    expect(code).toBe(1);
    expect(stderr).toContain(`The database ${address}/people cannot be used.`);
    expect(stderr).toMatch(/See that it runs and that DATABASE_URL.*\n {2}because: connect ECONNREFUSED/);
    expect(stderr + stdout).not.toContain('hidden');
  });

  it('a database none of whose hosts can be reached', async () => {
    const hosts = [await closedPort(), await closedPort()].map((port) => `127.0.0.1:${port}`);
    const url = `postgres://people:hidden@${hosts.join(',')}/people`;
    const { code, stderr, stdout } = await home.start({ DATABASE_URL: url, KAFKA: 'off' }).ended;
    expect(code).toBe(1);
    expect(stderr).toContain(`The database ${hosts.join(',')}/people cannot be used.`);
    for (const host of hosts) expect(stderr).toContain(`${host}: connect ECONNREFUSED`);
    expect(stderr + stdout).not.toContain('hidden');
  });

  it('a database in which it may not make its tables', async () => {
    const foreign = await createDatabase('template0');
    const url = new URL(foreign.url);
    const role = `reader_${url.pathname.slice(1)}`;
    await foreign.query(`CREATE ROLE ${role} LOGIN PASSWORD 'app'`);
    [url.username, url.password] = [role, 'app'];
    const { code, stderr } = await home.start({ DATABASE_URL: url.href, KAFKA: 'off' }).ended;
    await foreign.query(`DROP ROLE ${role}`);
    await foreign.drop();
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /The database could not be migrated\. Mend in it.*\n {2}because: permission denied/,
    );
  });

  it('a table that does not fit, each difference of which it names', async () => {
    const foreign = await createDatabase('template0');
    await foreign.query('CREATE TABLE people (id text, tenant text NOT NULL)');
    const { code, stderr } = await home.start({ DATABASE_URL: foreign.url, KAFKA: 'off' }).ended;
    await foreign.drop();
    expect(code).toBe(1);
    expect(stderr).toContain('The table people does not fit.');
    for (const what of [
      'id is of type text',
      'id may be null',
      'name is missing',
      'data is missing',
      'tenant is NOT NULL',
      'no primary key',
    ]) {
      expect(stderr).toMatch(new RegExp(`\n {2}because: .*${what}`));
    }
  });
});

describe('a broker that is not there keeps nobody from HTTP', () => {
  it('without Java it serves, and says in one line how to give it a broker', async () => {
    const service = home.start({
      DATABASE_URL: database.url,
      PATH: path.join(home.directory, 'no-such-bin'),
    });
    const { http, kafkaBrokers } = await service.services();
    expect(kafkaBrokers).toEqual([]);
    expect(service.stderr).toMatch(/^Serving HTTP alone\. .*Java.*KAFKA_BROKERS=host:9092.*KAFKA=off.*$/m);
    expect((await fetch(`${http}/people?name=x`)).status).toBe(200);
    service.signal('SIGTERM');
    expect((await service.ended).code).toBe(0);
  });

  it(
    'serves while its broker is away, says that it is not ready and why, and becomes ready by itself',
    async () => {
      const port = await closedPort();
      const service = home.start({ DATABASE_URL: database.url, KAFKA_BROKERS: `127.0.0.1:${port}` });
      const { http } = await service.services();
      const reason = () =>
        eventually(async () => {
          const response = await fetch(`${http}/health/ready?group=messages`);
          expect(response.status).toBe(503);
          const { error } = (await response.json()) as { error: { kafka: { reason: string } } };
          return /ECONNREFUSED/.test(error.kafka.reason) && error.kafka.reason;
        }, 60_000);
      expect(await reason()).toContain(`127.0.0.1:${port}`);
      expect((await fetch(`${http}/health/live`)).status).toBe(200);
      expect((await fetch(`${http}/people?name=x`)).status).toBe(200);

      const kafka = await startEmbeddedKafka({ directory: path.join(home.directory, 'kafka'), port });
      try {
        await eventually(
          async () => (await fetch(`${http}/health/ready?group=messages`)).status === 200,
          60_000,
        );
        service.signal('SIGTERM');
        expect((await service.ended).code).toBe(0);
      } finally {
        await kafka.stop();
      }
    },
    MINUTES,
  );

  it('is stopped by a signal while its broker is away', async () => {
    const broker = `127.0.0.1:${await closedPort()}`;
    const service = home.start({ DATABASE_URL: database.url, KAFKA_BROKERS: broker });
    await service.services();
    service.signal('SIGINT');
    expect((await service.ended).code).toBe(0);
    expect(home.pids()).toEqual([]);
  });
});
