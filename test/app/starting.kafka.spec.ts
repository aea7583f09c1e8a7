import { readFileSync } from 'node:fs';
import pg from 'pg';
import { eventually } from '../support/barrier.js';
import { closedPort, ServiceHome, type ServiceProcess, takePort } from '../support/service-process.js';

const MINUTES = 240_000;
const BIG = '{"name":"Grace","data":{"n":18446744073709551615}}';
const jsonType = { 'content-type': 'application/json' };

let home: ServiceHome;
let service: ServiceProcess;
/** The one person there is when a test begins. */
const ada = '01938c5e-7a1b-7c3d-9e2f-00000000ada0';
/** What the first start in this directory told the user. */
let firstWords: string;

beforeAll(async () => {
  home = new ServiceHome();
  service = home.start();
  await service.services();
  firstWords = service.stderr;
}, MINUTES);
beforeEach(async () => {
  if (service.hasEnded) service = home.start();
  const { http, databaseUrl } = await service.services();
  await untilReady(http);
  const client = new pg.Client(databaseUrl);
  await client.connect();
  await client.query('DELETE FROM people');
  await client.query('INSERT INTO people (id, name) VALUES ($1, $2)', [ada, 'Ada']);
  await client.end();
}, MINUTES);
afterAll(() => home.remove());

const untilReady = (http: string) =>
  eventually(async () => (await fetch(`${http}/health/ready?group=messages`)).status === 200, 120_000);
const nameOfAda = async (http: string) =>
  ((await (await fetch(`${http}/people/${ada}`)).json()) as { name: string }).name;

describe('npm start with nothing configured', () => {
  it(
    'brings up PostgreSQL and Kafka of its own and tells on one screen where everything is',
    async () => {
      const services = await service.services();
      const { http, databaseUrl, kafkaBrokers, pid } = services;
      expect(Object.keys(services)).toEqual(['http', 'databaseUrl', 'kafkaBrokers', 'pid']);
      expect(pid).toBe(service.pid);
      expect(kafkaBrokers).toHaveLength(1);
      for (const place of [`${http}/people`, `${http}/docs`, databaseUrl, kafkaBrokers[0]!]) {
        expect(service.stderr).toContain(place);
      }
      expect(service.stderr.split('\n').length).toBeLessThanOrEqual(24);
      expect((await fetch(`${http}/docs`)).status).toBe(200);
      // The service itself, PostgreSQL with its helpers, and Java.
      expect(home.pids().length).toBeGreaterThan(3);
    },
    MINUTES,
  );

  it('says what it is doing while something takes its time', () => {
    expect(firstWords).toMatch(/making a PostgreSQL database[^]*starting Apache Kafka[^]*People is running/);
  });

  it('prints three commands that work as they stand', async () => {
    const created = await shell('curl');
    const { id } = JSON.parse(created) as { id: string };
    expect(created).toBe(`{"id":"${id}","name":"Ada","data":{"n":18446744073709551615}}`);

    expect(printed('node')).toBe(`node examples/send-message.mjs people.create '{"name":"Grace"}'`);
    expect(await shell('node')).toMatch(/^\{"id":"[-0-9a-f]{36}","name":"Grace","data":null\}\n$/);

    // psql, or for a machine without it what it would do.
    const [, url, statement] = /^psql '([^']+)' -c '([^']+)'$/.exec(printed('psql'))!;
    const client = new pg.Client(url);
    await client.connect();
    const { rows } = await client.query<{ name: string }>(statement!);
    await client.end();
    expect(rows.map(({ name }) => name).sort()).toEqual(['Ada', 'Ada', 'Grace']);
    if ((await home.run(['/bin/sh', '-c', 'command -v psql']).ended).code === 0) {
      expect(await shell('psql')).toMatch(/Ada[^]*Grace|Grace[^]*Ada/);
    }
  }, 60_000);

  describe('examples/send-message.mjs', () => {
    const send = (topic: string, value: string, environment: Record<string, string> = {}) =>
      home.run([process.execPath, 'examples/send-message.mjs', topic, value], environment).ended;

    it('prints the reply as it came, every digit of it', async () => {
      const { kafkaBrokers } = await service.services();
      const sent = await send('people.create', BIG, { KAFKA_BROKERS: kafkaBrokers[0]! });
      expect(sent).toMatchObject({ code: 0, stderr: '' });
      expect(sent.stdout).toMatch(/"name":"Grace","data":\{"n":18446744073709551615\}\}\n$/);
    });

    it('prints the error of a message that is refused, and exits 1', async () => {
      const { code, stdout } = await send('people.create', '{"name":7}');
      expect(code).toBe(1);
      expect(JSON.parse(stdout)).toMatchObject({ code: 'INVALID_INPUT', retryable: false });
    });

    it('says what to do when there is no broker to be found', async () => {
      const elsewhere = new ServiceHome();
      const script = [process.execPath, 'examples/send-message.mjs', 'people.create', '{}'];
      const { code, stderr } = await elsewhere.run(script).ended;
      await elsewhere.remove();
      expect(code).toBe(1);
      expect(stderr).toMatch(/^[^\n]*npm start[^\n]*KAFKA_BROKERS=host:port[^\n]*\n$/);
    });
  });

  it('started a second time says which process runs already, and leaves that one alone', async () => {
    const before = readFileSync(home.servicesFile, 'utf8');
    const { code, stderr } = await home.start().ended;
    expect(code).toBe(1);
    expect(stderr).toContain(`already running`);
    expect(stderr).toContain(`(pid ${service.pid})`);
    expect(readFileSync(home.servicesFile, 'utf8')).toBe(before);
    const { http } = await service.services();
    expect(await nameOfAda(http)).toBe('Ada');
    await untilReady(http);
  }, 60_000);

  it(
    'killed and started again stops what was left behind, and finds its data',
    async () => {
      service.signal('SIGKILL');
      await service.ended;
      const orphans = home.pids();
      expect(orphans.length).toBeGreaterThan(2);

      service = home.start();
      const { http, pid } = await service.services();
      expect(pid).toBe(service.pid);
      expect(home.pids().filter((each) => orphans.includes(each))).toEqual([]);
      expect(await nameOfAda(http)).toBe('Ada');
      await untilReady(http);
    },
    MINUTES,
  );

  it(
    'stopped and started again finds its data',
    async () => {
      const { http } = await service.services();
      const changed = await fetch(`${http}/people/${ada}`, {
        method: 'PATCH',
        headers: jsonType,
        body: '{"name":"Ada L."}',
      });
      expect(changed.status).toBe(200);
      service.signal('SIGTERM');
      expect((await service.ended).code).toBe(0);

      service = home.start({ KAFKA: 'off' });
      expect(await nameOfAda((await service.services()).http)).toBe('Ada L.');
      expect(service.stderr).toContain('Kafka     off');
      service.signal('SIGTERM');
      expect((await service.ended).code).toBe(0);
    },
    MINUTES,
  );

  it(
    'puts its servers on the ports it is told',
    async () => {
      service.signal('SIGTERM');
      await service.ended;
      const [postgres, kafka] = [await closedPort(), await closedPort()];
      service = home.start({ EMBEDDED_POSTGRES_PORT: String(postgres), EMBEDDED_KAFKA_PORT: String(kafka) });
      const { http, databaseUrl, kafkaBrokers } = await service.services();
      expect(new URL(databaseUrl).port).toBe(String(postgres));
      expect(kafkaBrokers).toEqual([`127.0.0.1:${kafka}`]);
      expect(await nameOfAda(http)).toBe('Ada');
    },
    MINUTES,
  );

  it(
    'stops both servers again when it fails half way, as on a port that is taken',
    async () => {
      service.signal('SIGTERM');
      await service.ended;
      const { port, close } = await takePort();
      const { code, stderr } = await home.start({ PORT: String(port) }).ended;
      await close();
      expect(code).toBe(1);
      expect(stderr).toContain(
        `PORT=${port}: another process listens there; stop it or choose another PORT.`,
      );
      expect(stderr).not.toContain('People is running');
      expect(home.pids()).toEqual([]);
    },
    MINUTES,
  );
});

/** The command of the banner that starts with `program`. */
function printed(program: string): string {
  return service.stderr
    .split('\n')
    .map((line) => line.trim())
    .find((line) => line.startsWith(`${program} `))!;
}

/** What the printed command writes, run as a user would. */
async function shell(program: string): Promise<string> {
  const { code, stdout, stderr } = await home.run(['/bin/sh', '-c', printed(program)]).ended;
  if (code !== 0) throw new Error(`${printed(program)} exited with ${code}: ${stderr}${stdout}`);
  return stdout;
}
