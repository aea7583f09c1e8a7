import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { connectPeer } from '../support/kafka.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

const TOPICS = ['orders.place', 'orders.place-dlt', 'orders.events'];

let directory: string | undefined;
let database: TestDatabase;
let host: ChildProcess | undefined;
let url: string;
const records: { topic: string; id: string; value: string }[] = [];
const peer = duringTests(() => connectPeer());

/** The example as it stands, compiled against this package as it was built; how it is installed is the other example's matter. */
beforeAll(async () => {
  mkdirSync('.data', { recursive: true });
  directory = mkdtempSync(path.resolve('.data', 'kafka-host-'));
  const isOwn = (file: string) =>
    !/^(node_modules|dist|package-lock\.json|.*\.tgz)$/.test(path.basename(file));
  cpSync('examples/kafka-host', directory, { recursive: true, filter: isOwn });
  mkdirSync(path.join(directory, 'node_modules'));
  symlinkSync(path.resolve('.'), path.join(directory, 'node_modules', 'nestjs-people'));
  const compiler = path.resolve('node_modules/typescript/bin/tsc');
  [database] = await Promise.all([
    createDatabase('template0'),
    promisify(execFile)(process.execPath, [compiler], { cwd: directory }),
    listen(),
  ]);
  url = await startHost();
}, 110_000);

afterAll(async () => {
  if (host?.exitCode === null) {
    const ended = once(host, 'exit');
    host.kill('SIGTERM');
    await ended;
  }
  await database?.drop();
  await peer.admin.deleteTopics({ topics: TOPICS });
  if (directory) rmSync(directory, { recursive: true, force: true });
});

it('an order that is sent twice is placed once, answered alike, and told of once', async () => {
  const id = randomUUID();
  const send = () => ask({ id, customer: 'Ada', item: 'book', quantity: 2 });
  expect([await send(), await send()]).toEqual([{ id, status: 'placed' }, { id, status: 'placed' }]); // prettier-ignore
  expect(await get('/stock')).toContainEqual({ item: 'book', available: 1 });
  expect(await get('/orders')).toMatchObject([{ id, item: 'book', quantity: 2 }]);
  expect(await database.query('SELECT name FROM people')).toEqual([{ name: 'Ada' }]);
  await eventually(() => eventsOf(id).size === 1);
});

it('of five that order the last lamp at once one has it, and nobody is stored for the others', async () => {
  const ask5 = ['a', 'b', 'c', 'd', 'e'].map((customer) =>
    ask({ id: randomUUID(), customer, item: 'lamp', quantity: 1 }),
  );
  const answers = await Promise.all(ask5);
  expect(answers.map(({ status }) => status).sort()).toEqual([
    'placed',
    ...Array<string>(4).fill('sold-out'),
  ]);
  expect(await get('/stock')).toContainEqual({ item: 'lamp', available: 0 });
  expect(await database.query('SELECT FROM people WHERE length(name) = 1')).toHaveLength(1);
});

it('an order for what is not there is a dead letter, and is handled once there is some', async () => {
  const order = { id: randomUUID(), customer: 'Alan', item: 'cake', quantity: 1 };
  await peer.emit('orders.place', { key: order.item, value: JSON.stringify(order) });
  const isLetter = ({ topic, value }: (typeof records)[number]) =>
    topic === 'orders.place-dlt' && value === JSON.stringify(order);
  await eventually(() => records.some(isLetter), 20_000);
  const [letter] = await database.query<{ seq: string; code: string }>(
    'SELECT seq, code FROM message_dead_letter',
  );
  expect(letter?.code).toBe('BAD_REQUEST');
  await database.query(`INSERT INTO stock VALUES ('cake', 1)`);
  const replayed = await fetch(`${url}/messages/dead-letters/${letter!.seq}/replay`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-operator': 'somebody' },
    body: '{"reason":"there is cake"}',
  });
  expect([replayed.ok, await replayed.text()]).toEqual([true, expect.anything()]);
  await eventually(() => eventsOf(order.id).size === 1, 20_000);
  expect(await get('/orders')).toContainEqual(expect.objectContaining({ id: order.id, item: 'cake' }));
});

/** To events and dead letters. */
async function listen(): Promise<void> {
  await peer.createTopics(TOPICS);
  await peer.consume(TOPICS.slice(1), ({ topic, headers, value }) =>
    records.push({ topic, id: String(headers?.ce_id), value: String(value) }),
  );
}

/** Sends the order under its own id, and gives what it is answered. */
async function ask(order: { id: string; customer: string; item: string; quantity: number }) {
  const { value, error } = await peer.ask('orders.place', JSON.stringify(order), {
    key: order.customer,
    headers: { 'message-id': order.id },
  });
  expect(error).toBeUndefined();
  return JSON.parse(value!) as { id: string; status: string };
}

/** The ids of the events that tell of an order; one that was sent again has the same. */
const eventsOf = (order: string) =>
  new Set(
    records
      .filter(({ topic, value }) => topic === 'orders.events' && value.includes(order))
      .map(({ id }) => id),
  );

const get = async (route: string): Promise<unknown> => (await fetch(`${url}${route}`)).json();

async function startHost(): Promise<string> {
  const brokers = process.env.TEST_KAFKA_BROKERS!;
  host = spawn(process.execPath, ['dist/src/main.js'], {
    cwd: directory,
    env: {
      PATH: process.env.PATH,
      DATABASE_URL: database.url,
      KAFKA_BROKERS: brokers,
      PORT: '0',
      NO_COLOR: '1',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [host.stdout!, host.stderr!]) stream.on('data', (data) => (output += data));
  return eventually(() => {
    if (host!.exitCode !== null) throw new Error(`The host application did not start:\n${output}`);
    return /listening on (\S+)/.exec(output)?.[1];
  }, 30_000);
}
