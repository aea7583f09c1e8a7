import { from } from 'pg-copy-streams';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { TransactionContext } from '../../src/transactions/transaction-context.js';
import type { TransactionOptions } from '../../src/transactions/transaction-options.js';
import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';
import { startTcpProxyTo } from '../support/tcp-proxy.js';

let sent: Buffer[] = [];

const app = duringTests(() => startPeopleApp());
const proxy = duringTests(() => startTcpProxyTo(app.database.url));
const single = duringTests(() =>
  startPeopleApp({ DATABASE_URL: proxy.through(app.database.url), DB_POOL_SIZE: '1' }, app.database),
);
beforeAll(async () => {
  await single.people.findByName('connects');
  proxy.onClientData = (data) => {
    sent.push(data);
    return 'pass';
  };
});
beforeEach(() => {
  sent = [];
});

const TICKET = 'nestjs_people_ticket';

/**
 * The round trips of what was sent: each is ended by a message to which the server answers ReadyForQuery, Sync or Query
 * (https://www.postgresql.org/docs/current/protocol-message-formats.html), and shows the texts of its statements.
 */
function roundTrips(): string[][] {
  const bytes = Buffer.concat(sent);
  const trips: string[][] = [];
  let texts: string[] = [];
  for (let at = 0; at < bytes.length;) {
    const type = String.fromCharCode(bytes[at]!);
    const length = bytes.readInt32BE(at + 1);
    const body = bytes.subarray(at + 5, at + 1 + length);
    const strings = body.toString('latin1').split('\0');
    // The question for the id is prepared once and asked by its name.
    const [first, second] = strings;
    if (type === 'P' && !first?.endsWith(TICKET)) texts.push(second!);
    if (type === 'B' && second?.endsWith(TICKET)) texts.push('xid?');
    if (type === 'Q') texts.push(first!.includes('pg_current_xact_id_if_assigned') ? 'xid?' : first!);
    if (type === 'S' || type === 'Q') {
      trips.push(texts);
      texts = [];
    }
    at += 1 + length;
  }
  return trips;
}

const run = (options: TransactionOptions, work: (transaction: TransactionContext) => Promise<unknown>) =>
  single.transactions.run(options, work);
const insert = (transaction: TransactionContext, name: string) =>
  transaction.query({ text: 'INSERT INTO people (name) VALUES ($1)', values: [name] });
const INSERT = 'INSERT INTO people (name) VALUES ($1)';

it('a unit of work that sends nothing sends nothing', async () => {
  await run({ isolationLevel: 'SERIALIZABLE' }, () => Promise.resolve());
  expect(roundTrips()).toEqual([]);
});

it('BEGIN and the question for the transaction’s id travel with the first statement, until the id is known', async () => {
  await run({}, async (transaction) => {
    await transaction.query({ text: 'SELECT $1::int', values: [1] });
    await insert(transaction, 'a');
    await insert(transaction, 'b');
  });
  expect(roundTrips()).toEqual([
    ['START TRANSACTION', 'SELECT $1::int', 'xid?'],
    [INSERT, 'xid?'],
    [INSERT],
    ['COMMIT'],
  ]);
});

describe('COMMIT travels with the last statement where the work says so', () => {
  const write = (transaction: TransactionContext) =>
    transaction.commitWith({ text: INSERT, values: ['last'] });
  const readAndWrite = async (transaction: TransactionContext) => {
    await transaction.query({ text: 'SELECT $1::int', values: [1] });
    await write(transaction);
  };

  it('behind a conflictKey: its transaction has its id from the start', async () => {
    await run({ conflictKey: 'c' }, readAndWrite);
    expect(roundTrips()).toEqual([
      ['START TRANSACTION', 'SELECT $1::int', 'xid?'],
      [INSERT, 'COMMIT'],
    ]);
  });

  it('behind a write or a lock, by which it has its id', async () => {
    await run({}, async (transaction) => {
      await insert(transaction, 'first');
      await write(transaction);
    });
    expect(roundTrips()).toEqual([
      ['START TRANSACTION', INSERT, 'xid?'],
      [INSERT, 'COMMIT'],
    ]);
    sent = [];
    const LOCK = 'SELECT id FROM people LIMIT 1 FOR UPDATE';
    await run({}, async (transaction) => {
      await transaction.query({ text: LOCK });
      await write(transaction);
    });
    expect(roundTrips()).toEqual([
      ['START TRANSACTION', LOCK, 'xid?'],
      [INSERT, 'COMMIT'],
    ]);
  });

  it('behind no more than a read, where nobody asks for what became of it', async () => {
    await run({ commitOutcome: 'report' }, readAndWrite);
    expect(roundTrips()).toEqual([
      ['START TRANSACTION', 'SELECT $1::int'],
      [INSERT, 'COMMIT'],
    ]);
    sent = [];
    // The id is to be known before COMMIT.
    await run({}, readAndWrite);
    expect(roundTrips()).toEqual([
      ['START TRANSACTION', 'SELECT $1::int', 'xid?'],
      [INSERT, 'xid?'],
      ['COMMIT'],
    ]);
  });

  it('with what else is written at the end', async () => {
    const LATER = 'UPDATE people SET name = name';
    await run({ conflictKey: 'c', statementTimeoutMs: 5000 }, async (transaction) => {
      transaction.atCommit(() => ({ text: LATER, values: [] }));
      await readAndWrite(transaction);
    });
    expect(roundTrips().at(-1)).toEqual([LATER, INSERT, 'COMMIT']);
  });
});

it('so do the level, the mode and the timeouts', async () => {
  const options: TransactionOptions = {
    isolationLevel: 'SERIALIZABLE',
    readOnly: false,
    lockTimeoutMs: 100,
    statementTimeoutMs: 200,
    idleInTransactionTimeoutMs: 300,
    commitOutcome: 'report',
  };
  await run(options, (transaction) => insert(transaction, 'c'));
  expect(roundTrips()).toEqual([
    [
      'START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE',
      'SET LOCAL lock_timeout = 100',
      'SET LOCAL statement_timeout = 200',
      'SET LOCAL idle_in_transaction_session_timeout = 300',
      INSERT,
    ],
    ['COMMIT'],
  ]);
});

it('a statement without parameters travels likewise, and one that is read only is not asked for an id', async () => {
  await run({ readOnly: true }, ({ manager }) => manager.query('SELECT 1'));
  expect(roundTrips()).toEqual([['START TRANSACTION READ ONLY', 'SELECT 1'], ['COMMIT']]);
});

it('TypeORM’s own statements cost no BEGIN of their own', async () => {
  await run({ isolationLevel: 'REPEATABLE READ' }, ({ manager }) => manager.query('SELECT $1::int', [1]));
  expect(roundTrips()).toEqual([
    ['START TRANSACTION ISOLATION LEVEL REPEATABLE READ', 'SELECT $1::int', 'xid?'],
    ['COMMIT'],
  ]);
});

it('a COPY and a script travel alone, and the id is asked for before COMMIT', async () => {
  await run({}, ({ client }) =>
    pipeline(Readable.from(['d\n']), client.query(from('COPY people (name) FROM STDIN'))),
  );
  expect(roundTrips().at(-1)).toEqual(['COMMIT']);
  expect(roundTrips().slice(0, -1)).toEqual([
    ['START TRANSACTION'],
    ['COPY people (name) FROM STDIN'],
    ['xid?'],
  ]);
  sent = [];
  await run({}, ({ client }) => client.query('SELECT 1; SELECT 2'));
  expect(roundTrips()).toEqual([['START TRANSACTION'], ['SELECT 1; SELECT 2'], ['xid?'], ['COMMIT']]);
});

it('a failed attempt costs its statements and a ROLLBACK', async () => {
  await expect(
    run({}, (transaction) => transaction.query({ text: 'SELECT $1::int', values: ['x'] })),
  ).rejects.toThrow();
  expect(roundTrips()).toEqual([['START TRANSACTION', 'SELECT $1::int', 'xid?'], ['ROLLBACK']]);
});

it('an operation of one statement is one round trip, and two where its COMMIT is to be known', async () => {
  const { id } = await single.people.create({ name: 'lean' });
  await single.people.get(id);
  await single.people.update(id, { name: 'leaner' });
  await single.people.findByName('leaner');
  await single.people.remove(id);
  expect(roundTrips()).toHaveLength(5);
  expect(roundTrips().flat().join()).not.toMatch(/BEGIN|START TRANSACTION|COMMIT|xid/);
  sent = [];
  const statement = { text: 'DELETE FROM people WHERE id = $1', values: [id] };
  await single.transactions.runStatement(statement, { writes: true, commitOutcome: 'resolve' });
  expect(roundTrips()).toEqual([
    ['START TRANSACTION', 'DELETE FROM people WHERE id = $1', 'xid?'],
    ['COMMIT'],
  ]);
});
