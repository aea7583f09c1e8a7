import { currentTransaction, type TransactionContext } from '../../src/transactions/transaction-context.js';
import { TransactionRetriesExhaustedError } from '../../src/transactions/transaction-errors.js';
import { barrier } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { poolOf, startPeopleApp } from '../support/people-app.js';
import { nextRetry, watchRetries } from '../support/retries.js';

const app = duringTests(() => startPeopleApp());
const ids: string[] = [];
const nameOf = async (id: string | undefined) => (await app.people.get(id!)).name;
const rename = (transaction: TransactionContext, id: string | undefined, name: string) =>
  transaction.query({ text: 'UPDATE people SET name = $2 WHERE id = $1', values: [id, name] });
const append = (transaction: TransactionContext, id: string | undefined, text: string) =>
  transaction.query({ text: 'UPDATE people SET name = name || $2 WHERE id = $1', values: [id, text] });

beforeEach(async () => {
  ids.splice(0, ids.length, ...(await app.people.createMany([{ name: 'a' }, { name: 'b' }])).ids);
});

describe('a conflict', () => {
  it('in which two units of work lock two rows in opposite order ends with both applied', async () => {
    const bothHoldOne = barrier(2);
    const lockBoth = (first: string | undefined, second: string | undefined, mark: string) =>
      app.transactions.run({}, async (transaction) => {
        await append(transaction, first, mark);
        if (transaction.attempt === 1) await bothHoldOne();
        await append(transaction, second, mark);
      });
    const { result, retries } = await watchRetries(() =>
      Promise.all([lockBoth(ids[0], ids[1], '1'), lockBoth(ids[1], ids[0], '2')]),
    );
    expect(result.status).toBe('fulfilled');
    expect(retries).toEqual([expect.objectContaining({ code: '40P01', attempt: 1 })]);
    expect([...(await nameOf(ids[0]))].sort().join('')).toBe('12a');
    expect([...(await nameOf(ids[1]))].sort().join('')).toBe('12b');
  });

  it('that shows at COMMIT (write skew under SERIALIZABLE) is repeated from the start', async () => {
    const allRead = barrier(2);
    const allWrote = barrier(2);
    let finishedWorks = 0;
    // Each may take its person off duty only while the other is on duty.
    const goOffDuty = (mine: number) =>
      app.transactions.run({ isolationLevel: 'SERIALIZABLE' }, async (transaction) => {
        const { rows } = await transaction.query<{ name: string }>({
          text: 'SELECT name FROM people WHERE id = ANY ($1)',
          values: [ids],
        });
        if (transaction.attempt === 1) await allRead();
        const onDuty = rows.filter(({ name }) => name !== 'off').length;
        if (onDuty > 1) await rename(transaction, ids[mine], 'off');
        if (transaction.attempt === 1) await allWrote();
        finishedWorks++;
      });
    const { result, retries } = await watchRetries(() => Promise.all([goOffDuty(0), goOffDuty(1)]));
    expect(result.status).toBe('fulfilled');
    expect(retries).toEqual([expect.objectContaining({ code: '40001', attempt: 1 })]);
    // Both works had returned before one of the two COMMITs failed, and one ran once more.
    expect(finishedWorks).toBe(3);
    const names = [await nameOf(ids[0]), await nameOf(ids[1])];
    expect(names.filter((name) => name === 'off')).toHaveLength(1);
  });

  it('ten times in a row ends with the typed error, the causes, and nothing changed', async () => {
    let attempts = 0;
    const work = () =>
      app.transactions.run(
        { isolationLevel: 'REPEATABLE READ', backoff: { baseMs: 1, capMs: 1 } },
        async (transaction) => {
          attempts++;
          await transaction.query({ text: 'SELECT FROM people WHERE id = $1', values: [ids[0]] });
          await app.database.query('UPDATE people SET name = $2 WHERE id = $1', [
            ids[0],
            `other ${attempts}`,
          ]);
          await rename(transaction, ids[0], 'mine');
        },
      );
    const { result, retries } = await watchRetries(work);
    expect(attempts).toBe(10);
    expect(retries.map(({ attempt }) => attempt)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    const error = (result as PromiseRejectedResult).reason as TransactionRetriesExhaustedError;
    expect(error).toBeInstanceOf(TransactionRetriesExhaustedError);
    expect(error).toMatchObject({ attempts: 10, code: '40001', retryable: true });
    expect(error.errors).toHaveLength(10);
    expect(error.cause).toBe(error.errors.at(-1));
    expect(await nameOf(ids[0])).toBe('other 10');
    expect(poolOf(app.dataSource).borrowed).toBe(0);
  });

  it('ten times in a row over HTTP is answered 503, after ten attempts of one statement', async () => {
    await app.database.query(`
      CREATE SEQUENCE attempts;
      CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM nextval('attempts'); RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$;
      CREATE TRIGGER conflict BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION conflict();`);
    try {
      const response = await app.send('PATCH', `/people/${ids[0]}`, '{"name":"x"}');
      expect(response.status).toBe(503);
      expect(response.headers.get('retry-after')).toBe('1');
      expect(await response.json()).toEqual({
        type: '/problems/transaction-retries-exhausted',
        title: 'Transaction retries exhausted',
        status: 503,
        detail:
          'The operation collided with others in each of its 10 attempts; nothing was changed, try again.',
        instance: `/people/${ids[0]}`,
      });
      expect(await app.database.query('SELECT last_value::int AS attempts FROM attempts')).toEqual([
        { attempts: 10 },
      ]);
    } finally {
      await app.database.query(
        'DROP TRIGGER conflict ON people; DROP FUNCTION conflict; DROP SEQUENCE attempts',
      );
    }
  });

  it('in a unit of work that joined makes the outermost one run again as a whole', async () => {
    let outer = 0;
    let inner = 0;
    await app.transactions.run({ isolationLevel: 'REPEATABLE READ' }, async (transaction) => {
      outer++;
      await transaction.query({ text: 'SELECT FROM people WHERE id = $1', values: [ids[0]] });
      if (outer === 1)
        await app.database.query('UPDATE people SET name = $2 WHERE id = $1', [ids[0], 'other']);
      await app.transactions.run({}, async (joined) => {
        inner++;
        expect(joined).toBe(transaction);
        await app.people.update(ids[0]!, { name: 'mine' });
      });
    });
    expect([outer, inner]).toEqual([2, 2]);
    expect(await nameOf(ids[0])).toBe('mine');
  });
});

describe('between two attempts', () => {
  it('no connection is held, so that others work in the meantime', async () => {
    const single = await startPeopleApp({ DB_POOL_SIZE: '1' }, app.database);
    const bystander = nextRetry().then(() => single.people.get(ids[1]!));
    const borrowedAtRetry: number[] = [];
    const { result } = await watchRetries(
      () =>
        single.transactions.run({ isolationLevel: 'REPEATABLE READ' }, async (transaction) => {
          await transaction.query({ text: 'SELECT FROM people WHERE id = $1', values: [ids[0]] });
          if (transaction.attempt === 1) {
            await app.database.query('UPDATE people SET name = $2 WHERE id = $1', [ids[0], 'other']);
          }
          await rename(transaction, ids[0], 'mine');
        }),
      () => borrowedAtRetry.push(poolOf(single.dataSource).borrowed),
    );
    expect(result.status).toBe('fulfilled');
    expect(borrowedAtRetry).toEqual([0]);
    expect((await bystander).name).toBe('b');
    await single.close();
  });

  it('everything of the attempt is new: context, manager and connection state', async () => {
    const seen: TransactionContext[] = [];
    await app.transactions.run({ isolationLevel: 'REPEATABLE READ' }, async (transaction) => {
      seen.push(transaction);
      expect(currentTransaction()).toBe(transaction);
      const { rows } = await transaction.query<{ level: string }>({
        text: `SELECT current_setting('transaction_isolation') AS level FROM people WHERE id = $1`,
        values: [ids[0]],
      });
      expect(rows).toEqual([{ level: 'repeatable read' }]);
      if (seen.length === 1)
        await app.database.query('UPDATE people SET name = $2 WHERE id = $1', [ids[0], 'other']);
      await rename(transaction, ids[0], 'mine');
    });
    expect(seen).toHaveLength(2);
    expect(seen[0]!.manager).not.toBe(seen[1]!.manager);
    expect(seen.map(({ id }) => id)).toEqual([seen[0]!.id, seen[0]!.id]);
    expect(currentTransaction()).toBeUndefined();
  });
});
