import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

let database: TestDatabase;

beforeEach(async () => {
  database = await createDatabase();
  for (const [n, topic, key, code] of [
    [1, 'people.create', 'ada', 'INVALID_INPUT'],
    [2, 'people.create', 'grace', 'INTERNAL_ERROR'],
    [3, 'people.update', 'ada', 'INTERNAL_ERROR'],
  ] as const) {
    await database.query(
      `INSERT INTO message_dead_letter (consumer, message_id, topic, partition, "offset", "timestamp", key, value, headers, code, message, attempts)
       VALUES ('people', $1, $2, 0, $3, '0', $4, '{}', '[]', $5, 'what was wrong', 1)`,
      [`m${n}`, topic, n, Buffer.from(key), code],
    );
    await database.query(`INSERT INTO message_inbox (consumer, message_id, digest) VALUES ('people', $1, '')`, [`m${n}`]); // prettier-ignore
  }
});
afterEach(() => database.drop());

/** `npx nestjs-people …`, as its bin is run. */
const nestjsPeople = (...args: string[]) => nestjsPeopleWith({}, ...args);

async function nestjsPeopleWith(
  environment: Record<string, string>,
  ...args: string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  const { PATH, HOME } = process.env;
  const options = { env: { PATH, HOME, DATABASE_URL: database.url, ...environment } };
  return promisify(execFile)(process.execPath, ['dist/src/cli.js', ...args], options).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error: { code: number; stdout: string; stderr: string }) => error,
  );
}

const listed = async (...filter: string[]) => {
  const { code, stdout } = await nestjsPeople('dead-letters', 'list', ...filter);
  expect(code).toBe(0);
  return stdout
    .trim()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line).messageId);
};

it('dead letters are listed in the order they came, whatever their numbers', async () => {
  await database.query('ALTER TABLE message_dead_letter ALTER seq RESTART WITH 10');
  await database.query(
    `INSERT INTO message_dead_letter (consumer, message_id, topic, partition, "offset", "timestamp", headers, code, message, attempts)
     VALUES ('people', 'm10', 'people.create', 0, 10, '0', '[]', 'INVALID_INPUT', '', 1)`,
  );
  expect(await listed()).toEqual(['m1', 'm2', 'm3', 'm10']);
});

it('all of them are listed, however many', async () => {
  await database.query(
    `INSERT INTO message_dead_letter (consumer, message_id, topic, partition, "offset", "timestamp", headers, code, message, attempts)
     SELECT 'people', 'many ' || n, 'people.create', 0, n, '0', '[]', 'INVALID_INPUT', '', 1 FROM generate_series(1, 2500) n`,
  );
  const many = await listed('--error', 'INVALID_INPUT');
  expect(many).toEqual(['m1', ...Array.from({ length: 2500 }, (_, n) => `many ${n + 1}`)]);
});

it('dead letters are listed by topic, key, id and error', async () => {
  expect(await listed()).toEqual(['m1', 'm2', 'm3']);
  expect(await listed('--topic', 'people.create')).toEqual(['m1', 'm2']);
  expect(await listed('--key', 'ada')).toEqual(['m1', 'm3']);
  expect(await listed('--id', 'm2')).toEqual(['m2']);
  expect(await listed('--error', 'INTERNAL_ERROR', '--key', 'ada')).toEqual(['m3']);
});

it('dead letters are found in the schema that the URL names, also where more is asked of the session', async () => {
  await database.query('CREATE SCHEMA crm');
  for (const table of ['message_dead_letter', 'message_inbox', 'message_outbox'])
    await database.query(`ALTER TABLE ${table} SET SCHEMA crm`);
  const url = `${database.url}?options=-c%20search_path%3Dcrm,public`;
  const more = { DB_STATEMENT_TIMEOUT_MS: '0', TRANSACTION_ISOLATION_LEVEL: 'SERIALIZABLE' };
  const { stdout } = await nestjsPeopleWith({ ...more, DATABASE_URL: url }, 'dead-letters', 'list');
  expect(stdout.trim().split('\n')).toHaveLength(3);
});

it('what is replayed is marked as not handled and waits for the relay, once', async () => {
  expect((await nestjsPeople('dead-letters', 'replay', '--key', 'ada')).stdout).toBe('2 replayed\n');
  expect((await nestjsPeople('dead-letters', 'replay', '--key', 'ada')).stdout).toBe('0 replayed\n');
  expect(await listed()).toEqual(['m2']);
  expect(await database.query('SELECT type, topic FROM message_outbox ORDER BY seq')).toEqual([
    { type: 'replay', topic: 'people.create' },
    { type: 'replay', topic: 'people.update' },
  ]);
  expect(await database.query('SELECT message_id FROM message_inbox')).toEqual([{ message_id: 'm2' }]);
});

it('what is discarded is listed no more, and stays handled', async () => {
  expect((await nestjsPeople('dead-letters', 'discard', '--id', 'm1')).stdout).toBe('1 discarded\n');
  expect(await listed()).toEqual(['m2', 'm3']);
  expect(await database.query('SELECT FROM message_inbox')).toHaveLength(3);
});

it('a part of them is listed, and one is shown whole', async () => {
  expect(await listed('--limit', '2')).toEqual(['m1', 'm2']);
  await database.query(
    `UPDATE message_dead_letter SET cause = '[{"type":"Error","message":"why","stack":"    at x"}]'`,
  );
  const { code, stdout } = await nestjsPeople('dead-letters', 'show', '--id', 'm2');
  expect([code, JSON.parse(stdout)]).toEqual([
    0,
    expect.objectContaining({
      ...{ messageId: 'm2', value: { text: '{}' }, headers: [], attempts: 1, traceId: null },
      causes: [{ type: 'Error', message: 'why', stack: '    at x' }],
    }),
  ]);
});

it('who replayed or discarded them is kept, with the reason', async () => {
  await nestjsPeople('dead-letters', 'replay', '--key', 'ada', '--reason', 'INC-1');
  await nestjsPeople('dead-letters', 'discard', '--all');
  expect(
    await database.query('SELECT actor, action, reason, details FROM message_audit ORDER BY seq'),
  ).toEqual([
    {
      ...{ actor: expect.stringMatching(/^\S+ \(command line\)$/), action: 'replay', reason: 'INC-1' },
      details: { filter: { key: 'ada' }, settled: 2 },
    },
    expect.objectContaining({ action: 'discard', reason: null, details: { filter: {}, settled: 1 } }),
  ]);
});

it('a script can tell what is not there, what failed, and what it asked for by --help', async () => {
  for (const action of ['show', 'discard']) {
    const { code, stderr } = await nestjsPeople('dead-letters', action, '--id', 'nobody');
    expect([action, code, stderr]).toEqual([action, 3, 'There is no dead letter nobody.\n']);
  }
  const { code, stdout } = await nestjsPeople('dead-letters', 'list', '--help');
  expect([code, stdout]).toEqual([0, expect.stringContaining('exit codes: 0 done')]);
  await database.query('ALTER TABLE message_dead_letter RENAME TO elsewhere');
  expect((await nestjsPeople('dead-letters', 'list')).code).toBe(1);
});

it.each([
  [['letters'], 'expected dead-letters'],
  [['dead-letters', 'remove'], 'expected list, show, replay or discard'],
  [['dead-letters', 'show'], '--id'],
  [['dead-letters', 'list', '--limit', '0'], '--limit'],
  [['dead-letters', 'discard', '--all', '--limit', '1'], '--limit'],
  [['dead-letters', 'replay'], 'say which, or --all'],
  [['dead-letters', 'list', '--color', 'red'], '--color'],
])('%j is refused with what to write instead, and changes nothing', async (args, expected) => {
  const { code, stderr } = await nestjsPeople(...args);
  expect(code).toBe(2);
  expect(stderr).toContain(expected);
  expect(stderr).toContain('usage: nestjs-people dead-letters');
  expect(await database.query(`SELECT FROM message_dead_letter WHERE state = 'dead'`)).toHaveLength(3);
});
