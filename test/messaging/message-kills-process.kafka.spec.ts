import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { connectPeer } from '../support/kafka.js';
import { counters, createCountersDatabase } from '../support/messages-host.js';
import type { TestDatabase } from '../support/test-database.js';

/** Each crash costs a session: the group waits for the one that is gone. */
const PATIENCE_MS = 60_000;
const names = Array.from({ length: 30 }, (_, n) => `healthy ${n}`);

let database: TestDatabase;
let topic: string;
let groupId: string;
let host: { child: ChildProcess; ended: Promise<unknown>; output: string } | undefined;

function start(environment: Record<string, string> = {}): NonNullable<typeof host> {
  const command = ['--import', '@swc-node/register/esm-register', 'test/messaging/mortal-host.ts'];
  const child = spawn(process.execPath, command, {
    env: { ...process.env, NODE_OPTIONS: '', DATABASE_URL: database.url, GROUP_ID: groupId, TOPIC: topic, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  }); // prettier-ignore
  const started = { child, ended: once(child, 'exit'), output: '' };
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (data: Buffer) => (started.output += data.toString()));
  host = started;
  return started;
}

const isOver = ({ child }: NonNullable<typeof host>) => child.exitCode !== null || child.signalCode !== null;
const send = (to: string, all: string[]) =>
  peer.emitAll(to, all.map((name, n) => ({ key: String(n % 7), value: JSON.stringify({ name }), headers: { 'message-id': name } }))); // prettier-ignore
const letters = async () => {
  const rows = await database.query<{ text: string }>(`SELECT message_id || ' ' || code AS text FROM message_dead_letter WHERE state = 'dead'`); // prettier-ignore
  return rows.map(({ text }) => text);
};
const isAllApplied = async () => Object.keys(await counters(database)).length === names.length;

const peer = duringTests(() => connectPeer());
beforeEach(async () => {
  topic = `mortal-${randomUUID()}`;
  groupId = topic;
  database = await createCountersDatabase();
  await peer.createTopics([topic]);
});
afterEach(async () => {
  host?.child.kill('SIGKILL');
  await host?.ended;
  await database.drop();
});

// @trap a message that kills the process
it(
  'a message that kills the process is a dead letter after two restarts, and all others are applied once',
  async () => {
    await send(topic, [...names.slice(0, 12), 'killer', ...names.slice(12)]);
    let deaths = 0;
    let running = start();
    await eventually(async () => {
      if (isOver(running)) {
        deaths++;
        running = start();
      }
      return (await letters()).length > 0 && (await isAllApplied());
    }, PATIENCE_MS);
    expect(deaths).toBe(3);
    expect(await letters()).toEqual(['killer MESSAGE_KILLS_PROCESS']);
    expect(await counters(database)).toEqual(Object.fromEntries(names.map((name) => [name, 1])));
    running.child.kill('SIGTERM');
    await running.ended;
    expect(await database.query('SELECT FROM message_trial')).toEqual([]);
  },
  2 * PATIENCE_MS,
);

// @trap a kill from outside is taken for the message’s doing
it(
  'a message over which the process was killed from outside is handled, and is no dead letter',
  async () => {
    const held = names[5]!;
    await send(topic, names);
    for (const _ of ['unwatched', 'watched']) {
      const { child, ended } = start({ HELD: held });
      await eventually(() => host!.output.includes(`begun ${held}\n`), PATIENCE_MS);
      child.kill('SIGKILL');
      await ended;
    }
    expect(await database.query('SELECT count FROM message_trial WHERE message_id = $1', [held])).toEqual([
      { count: 1 },
    ]);
    const { child, ended } = start();
    await eventually(isAllApplied, PATIENCE_MS);
    expect(await letters()).toEqual([]);
    expect(await counters(database)).toEqual(Object.fromEntries(names.map((name) => [name, 1])));
    child.kill('SIGTERM');
    await ended;
    expect(await database.query('SELECT FROM message_trial')).toEqual([]);
  },
  3 * PATIENCE_MS,
);
