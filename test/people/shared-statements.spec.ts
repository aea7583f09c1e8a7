import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { Person } from '../../src/people/person.entity.js';
import {
  PersonChangedError,
  PersonNotFoundError,
  PersonRefusedError,
} from '../../src/people/people.errors.js';
import { eventually } from '../support/barrier.js';
import { startLossyProxy } from '../support/lossy-proxy.js';
import { type PeopleHost, type PeopleHostOptions, startPeopleHost } from '../support/people-host.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

/** A statement's number of rows goes to `statements`. */
const COUNTING = `
  CREATE TABLE statements (op text, rows int);
  CREATE FUNCTION count_statement() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF TG_OP = 'DELETE' THEN INSERT INTO statements SELECT TG_OP, count(*) FROM gone;
      ELSE INSERT INTO statements SELECT TG_OP, count(*) FROM come; END IF;
      RETURN NULL;
    END $$;
  CREATE TRIGGER a AFTER INSERT ON people REFERENCING NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION count_statement();
  CREATE TRIGGER b AFTER UPDATE ON people REFERENCING NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION count_statement();
  CREATE TRIGGER c AFTER DELETE ON people REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_statement();
`;

const CALLERS = 20;
const each = <T>(call: (index: number) => Promise<T>) =>
  Promise.all(Array.from({ length: CALLERS }, (_, index) => call(index)));
const settled = <T>(calls: readonly Promise<T>[]) => Promise.allSettled(calls);

let database: TestDatabase;
let host: PeopleHost;
const start = async (options: PeopleHostOptions = {}, url = database.url) => {
  const started = await startPeopleHost(url, options);
  // The server and the table are known once they were asked.
  await started.people.create({ name: 'first' });
  return started;
};
const rowsOf = async (op: string) =>
  (await database.query<{ rows: number }>('SELECT rows FROM statements WHERE op = $1', [op])).map(
    ({ rows }) => rows,
  );
const namesOf = async (people: readonly Person[]) => {
  const rows = await database.query<{ id: string; name: string }>('SELECT id, name FROM people');
  const names = new Map(rows.map(({ id, name }) => [id, name]));
  return people.map(({ id }) => names.get(id));
};

beforeEach(async () => {
  database = await createDatabase();
  host = await start();
});
afterEach(async () => {
  await host.close();
  await database.drop();
});

describe('single operations that are ready together', () => {
  it('share statements, and each has its own result', async () => {
    await database.query(COUNTING);
    const created = await each((index) => host.people.create({ name: `n${index}`, data: { index } }));
    expect(created.map(({ name, data }) => [name, data])).toEqual(
      created.map((_, index) => [`n${index}`, { index }]),
    );
    const updated = await each((index) => host.people.update(created[index]!.id, { name: `m${index}` }));
    expect(updated.map(({ name, data }) => [name, data])).toEqual(
      updated.map((_, index) => [`m${index}`, { index }]),
    );
    const read = await each((index) => host.people.get(created[index]!.id));
    expect(read).toEqual(updated);
    expect(read.map(({ version }) => version)).toEqual(updated.map(({ version }) => version));
    await each((index) => host.people.remove(created[index]!.id));
    for (const op of ['INSERT', 'UPDATE', 'DELETE']) {
      const rows = await rowsOf(op);
      expect([op, rows.reduce((sum, of) => sum + of, 0)]).toEqual([op, CALLERS]);
      expect([op, rows.length < CALLERS / 2]).toEqual([op, true]);
    }
  });

  it('travel apart where the option says so', async () => {
    await host.close();
    host = await start({ people: { transactions: { sharedStatements: false } } });
    await database.query(COUNTING);
    await each((index) => host.people.create({ name: `n${index}` }));
    expect(await rowsOf('INSERT')).toEqual(Array.from({ length: CALLERS }, () => 1));
  });

  it('travel apart in transactions of their own, and where a level is chosen', async () => {
    await database.query(COUNTING);
    await each((index) => host.transactions.run({}, () => host.people.create({ name: `n${index}` })));
    await host.close();
    host = await start({ people: { transactions: { isolationLevel: 'SERIALIZABLE' } } });
    await each((index) => host.people.create({ name: `n${index}` }));
    expect((await rowsOf('INSERT')).filter((rows) => rows !== 1)).toEqual([]);
  });

  it('fail alone: what the table refuses of one is done for the others, once each', async () => {
    await database.query(`ALTER TABLE people ADD CHECK (name <> 'bad')`);
    const bad = [3, 4, 11];
    const outcomes = await settled(
      Array.from({ length: CALLERS }, (_, index) =>
        host.people.create({ name: bad.includes(index) ? 'bad' : `n${index}` }),
      ),
    );
    expect(outcomes.flatMap(({ status }, index) => (status === 'rejected' ? [index] : []))).toEqual(bad);
    for (const index of bad)
      expect((outcomes[index] as PromiseRejectedResult).reason).toBeInstanceOf(PersonRefusedError);
    const [stored] = await database.query<{ count: string }>(
      `SELECT count(*) FROM people WHERE name <> 'first'`,
    );
    expect(Number(stored!.count)).toBe(CALLERS - bad.length);
  });

  it('have a condition and a person of their own', async () => {
    const people = await each((index) => host.people.create({ name: `n${index}` }));
    await host.people.remove(people[1]!.id);
    await host.people.update(people[2]!.id, { name: 'newer' });
    const outcomes = await settled(
      people.map(({ id, version }, index) =>
        host.people.update(id, { name: `m${index}` }, index % 2 === 0 ? { ifMatch: version! } : {}),
      ),
    );
    const reasons = outcomes.map((outcome) => (outcome.status === 'rejected' ? outcome.reason : undefined));
    expect(reasons[1]).toBeInstanceOf(PersonNotFoundError);
    expect(reasons[2]).toBeInstanceOf(PersonChangedError);
    expect(reasons.filter((reason) => reason !== undefined)).toHaveLength(2);
    expect(await namesOf(people)).toEqual(
      people.map((_, index) => (index === 1 ? undefined : index === 2 ? 'newer' : `m${index}`)),
    );
    const gone = await settled(people.map(({ id }) => host.people.get(id)));
    expect(gone.map(({ status }) => status === 'rejected')).toEqual(people.map((_, index) => index === 1));
  });

  it.each(['update', 'remove'] as const)(
    'do not wait for a row that somebody else has locked (%s)',
    async (kind) => {
      const people = await each((index) => host.people.create({ name: `n${index}` }));
      const other = new pg.Client(database.url);
      await other.connect();
      try {
        await other.query('BEGIN');
        await other.query(`UPDATE people SET name = 'theirs' WHERE id = $1`, [people[7]!.id]);
        const calls = people.map(({ id }, index) =>
          kind === 'update'
            ? host.people.update(id, { name: `m${index}` }).then(() => undefined)
            : host.people.remove(id),
        );
        const free = calls.filter((_, index) => index !== 7);
        await Promise.all(free);
        await other.query('COMMIT');
        await calls[7];
      } finally {
        await other.end();
      }
      expect(await namesOf(people)).toEqual(
        people.map((_, index) => (kind === 'update' ? `m${index}` : undefined)),
      );
    },
  );

  it('keep the order of changes of one person, and that of its units of work', async () => {
    const people = await each((index) => host.people.create({ name: `n${index}`, data: { seen: [] } }));
    const { id } = people[0]!;
    const calls: Promise<unknown>[] = [];
    for (let round = 1; round <= 30; round++) {
      calls.push(...people.slice(1).map((person) => host.people.update(person.id, { name: `r${round}` })));
      calls.push(host.people.update(id, { name: `r${round}` }));
      if (round % 10 === 0) calls.push(host.people.update(id, { data: { round } }, { merge: true }));
    }
    await Promise.all(calls);
    expect(await namesOf(people)).toEqual(people.map(() => 'r30'));
    expect((await host.people.get(id)).data).toEqual({ seen: [], round: 30 });
  });

  it('never wait for each other in a ring, from two instances and in opposite orders', async () => {
    const other = await start();
    try {
      const people = await each((index) => host.people.create({ name: `n${index}` }));
      const backwards = [...people].reverse();
      for (let round = 0; round < 10; round++)
        await Promise.all([
          ...people.map(({ id }) => host.people.update(id, { name: 'here' })),
          ...backwards.map(({ id }) => other.people.update(id, { name: 'there' })),
        ]);
      const [stat] = await database.query<{ deadlocks: string }>(
        'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()',
      );
      expect(Number(stat!.deadlocks)).toBe(0);
    } finally {
      await other.close();
    }
  });

  it('each have an event of their own', async () => {
    await host.close();
    host = await start({ people: { events: true } });
    await database.query('DELETE FROM message_outbox');
    const people = await each((index) => host.people.create({ name: `n${index}` }));
    await each((index) => host.people.update(people[index]!.id, { name: `m${index}` }));
    await each((index) => host.people.remove(people[index]!.id));
    const events = await database.query<{ aggregateid: string; type: string; name: string | null }>(
      `SELECT aggregateid, type, payload->>'name' AS name FROM message_outbox ORDER BY seq`,
    );
    for (const [index, { id }] of people.entries())
      expect(events.filter(({ aggregateid }) => aggregateid === id)).toEqual([
        { aggregateid: id, type: 'person.created', name: `n${index}` },
        { aggregateid: id, type: 'person.updated', name: `m${index}` },
        { aggregateid: id, type: 'person.deleted', name: null },
      ]);
    expect(events).toHaveLength(3 * CALLERS);
  });

  it('read a person that is too large to be kept beside others', async () => {
    const text = 'x'.repeat(100_000);
    const people = await each((index) =>
      host.people.create({ name: `n${index}`, data: { text: index === 5 ? text : '' } }),
    );
    const read = await each((index) => host.people.get(people[index]!.id));
    expect(read.map(({ data }) => (data as { text: string }).text.length)).toEqual(
      people.map((_, index) => (index === 5 ? text.length : 0)),
    );
  });

  it('attempt a conflict ten times in all, each', async () => {
    await database.query(`
      CREATE SEQUENCE attempts;
      CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF NEW.name = 'never' THEN
            PERFORM nextval('attempts');
            RAISE EXCEPTION 'conflict' USING ERRCODE = '40001';
          END IF;
          RETURN NEW;
        END $$;
      CREATE TRIGGER conflict BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION conflict();
    `);
    const calls = [0, 1, 2, 3].map((index) =>
      host.people.create({ name: index === 3 ? 'never' : `n${index}` }),
    );
    const outcomes = await settled(calls);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled', 'rejected']);
    const [{ last }] = (await database.query<{ last: string }>(
      'SELECT last_value AS last FROM attempts',
    )) as [{ last: string }];
    expect(Number(last)).toBe(10);
  });
});

describe('an answer that is lost to several', () => {
  const through = async (
    use: (proxied: PeopleHost, lose: (statement: RegExp) => Promise<void>) => Promise<void>,
  ) => {
    const proxy = await startLossyProxy(database.url);
    const proxied = await start({}, proxy.url);
    try {
      await use(proxied, async (statement) => {
        const [answer] = await proxy.holdAnswers(statement);
        proxy.onRequest = () => 'pass';
        answer!.cut();
      });
    } finally {
      await proxied.close();
      await proxy.close();
    }
  };

  it('is asked for by each: those that were created are told so, once each', () =>
    through(async (proxied, lose) => {
      const lost = lose(/create_shared/);
      const people = await each((index) => proxied.people.create({ name: `n${index}` }));
      await lost;
      const stored = await database.query<{ name: string }>(`SELECT name FROM people WHERE name LIKE 'n%'`);
      expect(stored.map(({ name }) => name).sort()).toEqual(people.map(({ name }) => name).sort());
    }));

  it.each(['create', 'update', 'remove'] as const)(
    'is never told as if nothing was done, also where the server is away for a while (%s, harmless to repeat)',
    async (kind) => {
      const proxy = await startLossyProxy(database.url);
      const proxied = await start({}, proxy.url);
      try {
        const people = await each((index) => host.people.create({ name: `n${index}` }));
        const held = proxy.holdAnswers(new RegExp(`${kind}_shared`));
        const calls = people.map(({ id, version }, index) => {
          if (kind === 'create') return proxied.people.create({ name: `m${index}` });
          if (kind === 'update')
            return proxied.people.update(id, { name: `m${index}` }, { ifMatch: version! });
          return proxied.people.remove(id, { ifMatch: version! });
        });
        const outcomes = settled<unknown>(calls);
        await held;
        await proxy.refuse();
        await Promise.race([outcomes, sleep(1000)]);
        await proxy.recover();
        const told = (await outcomes).map((outcome) =>
          outcome.status === 'fulfilled' ? 'done' : (outcome.reason as { type: string }).type,
        );
        const [{ left }] = (await database.query<{ left: number }>(
          `SELECT count(*)::int AS left FROM people WHERE name LIKE 'n%'`,
        )) as [{ left: number }];
        const [{ made }] = (await database.query<{ made: number }>(
          `SELECT count(*)::int AS made FROM people WHERE name LIKE 'm%'`,
        )) as [{ made: number }];
        const done = kind === 'remove' ? CALLERS - left : made;
        const count = (what: string) => told.filter((one) => one === what).length;
        expect(count('done')).toBeLessThanOrEqual(done);
        expect(count('done') + count('transaction-outcome-unknown')).toBeGreaterThanOrEqual(done);
      } finally {
        await proxied.close();
        await proxy.close();
      }
    },
  );

  it('is asked for by each: those that were changed are told so', () =>
    through(async (proxied, lose) => {
      const people = await each((index) => proxied.people.create({ name: `n${index}` }));
      const lost = lose(/update_shared/);
      const updated = await each((index) => proxied.people.update(people[index]!.id, { name: `m${index}` }));
      await lost;
      expect(await namesOf(people)).toEqual(updated.map(({ name }) => name));
    }));
});

it('where a trigger works on each row for long, calls go side by side', async () => {
  await database.query(`
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        PERFORM pg_sleep(0.03);
        RETURN NEW;
      END $$;
    CREATE TRIGGER slow BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION slow();
  `);
  const busy = () =>
    database.query<{ count: string }>(
      `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`,
    );
  for (let index = 0; index < 3; index++) await host.people.create({ name: 'alone' });
  let isOver = false;
  const load = each(async () => {
    while (!isOver) await host.people.create({ name: 'together' });
  });
  await eventually(async () => Number((await busy())[0]!.count) > 2);
  isOver = true;
  await load;
});
