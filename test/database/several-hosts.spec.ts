import { isFailureOf } from '../../src/database/database-failure.js';
import { KnownServer } from '../../src/database/known-server.js';
import { connectBeside } from '../../src/database/pooled-client.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { type PeopleApp, poolOf, startPeopleApp } from '../support/people-app.js';
import { closedPort } from '../support/service-process.js';
import { startSilentServer } from '../support/silent-server.js';
import { startTcpProxyTo, type TcpProxy } from '../support/tcp-proxy.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';
import { startSecondServer } from '../support/second-server.js';

const one = duringTests(() => createDatabase());
const second = duringTests(() => startSecondServer(new URL(one.url).pathname.slice(1)));
const silent = duringTests(() => startSilentServer());
let two: TestDatabase;
let closed: string;
beforeAll(async () => {
  two = second.database;
  closed = `127.0.0.1:${await closedPort()}`;
});
afterEach(async () => {
  for (const database of [one, two]) await takeWrites(database, true);
});

const hostOf = (url: string) => new URL(url).host;
/** The url of a database of these hosts. */
const urlOf = (...hosts: string[]) => one.url.replace(hostOf(one.url), hosts.join(','));

/** For sessions that begin; those that are there go on. */
async function takeWrites(database: TestDatabase, takes: boolean): Promise<void> {
  const name = new URL(database.url).pathname.slice(1);
  await database.query('SET default_transaction_read_only = off');
  await database.query(`ALTER DATABASE ${name} SET default_transaction_read_only = ${takes ? 'off' : 'on'}`);
}

/** Ends the sessions of the application; it knows when this returns. */
async function endSessions(app: PeopleApp, database: TestDatabase): Promise<void> {
  await database.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nestjs-people' AND datname = current_database()`); // prettier-ignore
  await eventually(() => poolOf(app.dataSource).open === 0);
}

const sessionsOf = async (database: TestDatabase) =>
  (await database.query(`SELECT FROM pg_stat_activity WHERE application_name = 'nestjs-people' AND datname = current_database()`)).length; // prettier-ignore

async function withApp(environment: Record<string, string>, use: (app: PeopleApp) => Promise<void>) {
  const app = await startPeopleApp(environment, one);
  try {
    await use(app);
  } finally {
    await app.close();
  }
}

let people = 0;
/** Creates a person over HTTP, and says where it is: the answer's status, and in which databases. */
async function create(app: PeopleApp): Promise<[number, string]> {
  const name = `person ${++people}`;
  const { status } = await app.send('POST', '/people', JSON.stringify({ name }));
  const isIn = async (database: TestDatabase) =>
    (await database.query('SELECT FROM people WHERE name = $1', [name])).length > 0;
  return [status, `${(await isIn(one)) ? 'one' : ''}${(await isIn(two)) ? 'two' : ''}`];
}

describe('of several hosts the one that takes writes is used', () => {
  it.each<[string, () => string[]]>([
    ['the only one that there is', () => [closed, hostOf(two.url)]],
    ['before one that there is not', () => [hostOf(two.url), closed]],
    ['behind one that says nothing', () => [silent.host, hostOf(two.url)]],
    ['behind several of all kinds', () => [closed, silent.host, 'no-such-host.invalid', hostOf(one.url), hostOf(two.url)]], // prettier-ignore
    ['before a standby', () => [hostOf(two.url), hostOf(one.url)]],
    ['behind a standby', () => [hostOf(one.url), hostOf(two.url)]],
  ])('%s', async (_, hosts) => {
    await takeWrites(one, false);
    await withApp({ DATABASE_URL: urlOf(...hosts()) }, async (app) => {
      expect(await create(app)).toEqual([201, 'two']);
      const many = Array.from({ length: 20 }, () => app.send('POST', '/people', '{"name":"many"}'));
      expect(new Set((await Promise.all(many)).map(({ status }) => status))).toEqual(new Set([201]));
      expect(await sessionsOf(one)).toBe(0);
      const unit = app.transactions.run({}, () => app.people.create({ name: 'unit' }));
      expect((await unit).name).toBe('unit');
    });
    await eventually(() => silent.connections.size === 0);
  });

  it('in DB_HOSTNAME too, with and without a port', async () => {
    await takeWrites(one, false);
    const { hostname, port, username, password, pathname } = new URL(two.url);
    const parts = { DB_USER: username, DB_PASSWORD: password, DB_NAME: pathname.slice(1), DB_PORT: port };
    await withApp(
      { DATABASE_URL: '', DB_HOSTNAME: `${hostOf(one.url)}, ${hostname}`, ...parts },
      async (app) => expect(await create(app)).toEqual([201, 'two']),
    );
  });

  it('with their settings: the level, the timeout, the name', async () => {
    const environment = { TRANSACTION_ISOLATION_LEVEL: 'SERIALIZABLE', DB_STATEMENT_TIMEOUT_MS: '1234' };
    await withApp({ DATABASE_URL: urlOf(closed, hostOf(two.url)), ...environment }, async (app) => {
      const text = `SELECT concat_ws(' ', current_setting('transaction_isolation'), current_setting('statement_timeout'), current_setting('application_name')) AS is`;
      const { rows } = await app.transactions.runStatement<{ is: string }>({ text }, { writes: false });
      expect(rows).toEqual([{ is: 'serializable 1234ms nestjs-people' }]);
    });
  });
});

describe('another one is found', () => {
  it('when the sessions of the one are ended and it takes no writes any more, and back again', async () => {
    await takeWrites(two, false);
    await withApp({ DATABASE_URL: urlOf(hostOf(one.url), hostOf(two.url)) }, async (app) => {
      const swap = async (standby: TestDatabase, primary: TestDatabase) => {
        await takeWrites(standby, true);
        await takeWrites(primary, false);
        await endSessions(app, primary);
      };
      expect(await create(app)).toEqual([201, 'one']);
      await swap(two, one);
      expect(await create(app)).toEqual([201, 'two']);
      await swap(one, two);
      expect(await create(app)).toEqual([201, 'one']);
    });
  });

  it('when the sessions of the one live on and are refused to write', async () => {
    const alter = async (value: string) => {
      await two.query(`ALTER SYSTEM SET default_transaction_read_only = ${value}`);
      await two.query('SELECT pg_reload_conf()');
    };
    const name = new URL(two.url).pathname.slice(1);
    await two.query(`ALTER DATABASE ${name} RESET default_transaction_read_only`);
    await takeWrites(one, false);
    await withApp({ DATABASE_URL: urlOf(hostOf(one.url), hostOf(two.url)) }, async (app) => {
      await Promise.all([1, 2, 3].map(() => app.send('POST', '/people', '{"name":"many"}')));
      expect(await create(app)).toEqual([201, 'two']);
      try {
        await takeWrites(one, true);
        await alter('on');
        // Each of the pool's connections has yet to learn of it.
        await eventually(async () => (await create(app))[1] === 'one');
        await eventually(async () => (await sessionsOf(two)) === 0);
        expect(await create(app)).toEqual([201, 'one']);
      } finally {
        await two.query('SET default_transaction_read_only = off');
        await alter('off');
      }
    });
  });

  it('when the one dies, and stays the one when the other is back', async () => {
    const proxy = await startTcpProxyTo(one.url);
    const through = hostOf(proxy.through(one.url));
    await withApp({ DATABASE_URL: urlOf(through, hostOf(two.url)) }, async (app) => {
      expect(await create(app)).toEqual([201, 'one']);
      await proxy.refuse();
      await eventually(() => poolOf(app.dataSource).open === 0);
      expect(await create(app)).toEqual([201, 'two']);
      // It was found, and is asked first, although the other one is back.
      await proxy.accept();
      await endSessions(app, two);
      expect(await create(app)).toEqual([201, 'two']);
    });
    await proxy.close();
  });
});

/** Why a person can't be created. */
const failure = (app: PeopleApp) =>
  app.people.create({ name: 'nowhere' }).then(
    () => new Error('It was created.'),
    (error: Error & { cause?: Error }) => error,
  );

describe('where none takes writes', () => {
  it('it is a 503 whose log names each host and why, and all is well when one does', async () => {
    await withApp(
      { DATABASE_URL: urlOf(closed, hostOf(one.url), hostOf(two.url)), DB_POOL_SIZE: '2' },
      async (app) => {
        expect(await create(app)).toEqual([201, 'one']);
        for (const database of [one, two]) await takeWrites(database, false);
        await endSessions(app, one);
        const reason = new RegExp(
          `No host of the database takes writes \\(.*${closed}: connect ECONNREFUSED.*\\)`,
        );
        const error = await failure(app);
        expect(error).toMatchObject({ type: 'database-unavailable', cause: { code: '25006', message: expect.stringMatching(reason) } }); // prettier-ignore
        for (const { url } of [one, two])
        expect((error as { cause: Error }).cause.message).toContain(`${hostOf(url)}: takes no writes (read only or a standby)`); // prettier-ignore
        expect(String((error as { cause: Error }).cause.stack)).not.toContain('postgres:postgres');
        const response = await app.send('POST', '/people', '{"name":"nowhere"}');
        expect([response.status, await response.json()]).toMatchObject([503, { type: '/problems/database-unavailable' }]); // prettier-ignore
        await takeWrites(two, true);
        expect(await create(app)).toEqual([201, 'two']);
      },
    );
  });

  it('and all hang, it ends in time, and leaves no connection', async () => {
    const other = await startSilentServer();
    const environment = { DATABASE_URL: urlOf(silent.host, other.host, hostOf(one.url)), DB_ACQUIRE_TIMEOUT_MS: '600' }; // prettier-ignore
    await withApp(environment, async (app) => {
      expect(await create(app)).toEqual([201, 'one']);
      await takeWrites(one, false);
      await endSessions(app, one);
      const error = await failure(app);
      expect((error as { cause: Error }).cause.message).toContain(`${other.host}: no answer in 540 ms`);
      await eventually(() => silent.connections.size + other.connections.size === 0);
      await takeWrites(one, true);
      expect(await create(app)).toEqual([201, 'one']);
    });
    await other.close();
  });

  it('nothing is started, and it is said so of each', async () => {
    for (const database of [one, two]) await takeWrites(database, false);
    const start = startPeopleApp({ DATABASE_URL: urlOf(closed, hostOf(two.url)) }, one);
    await expect(start).rejects.toThrow(`(${closed}: connect ECONNREFUSED ${closed}; ${hostOf(two.url)}: takes no writes (read only or a standby))`); // prettier-ignore
  });
});

it('what became of a COMMIT that was lost with its host is asked at another one', async () => {
  const proxy: TcpProxy = await startTcpProxyTo(one.url);
  const hosts = [hostOf(proxy.through(one.url)), hostOf(one.url)];
  await withApp({ DATABASE_URL: urlOf(...hosts), DB_POOL_SIZE: '1' }, async (app) => {
    let runs = 0;
    let lost: Promise<void> | undefined;
    proxy.onClientData = (data) => {
      if (!data.includes('COMMIT')) return 'pass';
      // The server has it, and the host is gone.
      lost ??= new Promise((resolve) => setImmediate(() => resolve(proxy.refuse())));
      return 'cut-after';
    };
    const person = await app.transactions.run({}, async (transaction) => {
      runs++;
      const created = await app.people.create({ name: 'committed' });
      await transaction.query({ text: 'SELECT 1' });
      return created;
    });
    await lost;
    expect([runs, (await app.people.get(person.id)).name]).toEqual([1, 'committed']);
  });
});

it('a connection beside the pool is found likewise, and a search that is given up leaves none', async () => {
  const environment = { DATABASE_URL: urlOf(hostOf(one.url), silent.host), DB_POOL_SIZE: '1' };
  await withApp(environment, async (app) => {
    await takeWrites(one, false);
    const over = new AbortController();
    const connecting = connectBeside(app.dataSource, over.signal);
    await eventually(() => silent.connections.size === 1);
    over.abort();
    await expect(connecting).rejects.toThrow('given up');
    await eventually(() => silent.connections.size === 0);
    await takeWrites(one, true);
    const client = await connectBeside(app.dataSource, new AbortController().signal);
    const { rows } = await client.query<{ n: number }>('SELECT 1 AS n');
    expect(rows).toEqual([{ n: 1 }]);
    const error: unknown = await client.query('SELECT nowhere').catch((error: unknown) => error);
    expect(isFailureOf(client, error)).toBe(true);
    await client.end();
  });
});

it('a connection says whose it is on the server, so that nobody takes it for a pooler’s', async () => {
  await withApp({ DATABASE_URL: urlOf(closed, hostOf(one.url)) }, async (app) => {
    expect(await create(app)).toEqual([201, 'one']);
    expect(KnownServer.of(app.dataSource)).toMatchObject({ isPooled: false, dropsSettings: false });
  });
});

it('a single host is asked nothing more', async () => {
  const proxy = await startTcpProxyTo(one.url);
  let asked = 0;
  proxy.onClientData = (data) => {
    if (data.includes('transaction_read_only')) asked++;
    return 'pass';
  };
  await withApp({ DATABASE_URL: proxy.through(one.url) }, async (app) =>
    expect(await create(app)).toEqual([201, 'one']),
  );
  expect(asked).toBe(0);
  await withApp({ DATABASE_URL: urlOf(hostOf(proxy.through(one.url)), closed) }, async (app) =>
    expect(await create(app)).toEqual([201, 'one']),
  );
  expect(asked).toBeGreaterThan(0);
  await proxy.close();
});
