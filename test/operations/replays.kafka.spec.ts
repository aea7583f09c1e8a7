import { randomUUID } from 'node:crypto';
import { eventually } from '../support/barrier.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';

const GROUP = `replays-${randomUUID()}`;
const TOPIC = 'people.create';
const WAITS_FOR_PEOPLE = `SELECT FROM pg_locks WHERE relation = 'people'::regclass AND NOT granted`;
const peer = new KafkaPeer();
let app: PeopleApp;

beforeAll(async () => {
  app = await startKafkaApp(peer, { KAFKA_GROUP_ID: GROUP });
}, 120_000);
afterAll(async () => {
  await app.close();
  await peer.close();
});

/** The id of what has begun, or a problem. */
interface Answer {
  id: string;
  type: string;
  errors: { pointer: string }[];
}
type Replay = Record<'id' | 'state' | 'from' | 'to', string> & { progress: object };

const act = async (path: string, body: object) => {
  const response = await app.send(
    'POST',
    `/messages/replays${path}`,
    JSON.stringify({ reason: 'INC-1', ...body }),
  );
  return { status: response.status, body: (await response.json()) as Answer };
};
const replayOf = async (id: string) => {
  const { items } = (await (await app.request('/messages/replays')).json()) as { items: Replay[] };
  return items.find((item) => item.id === id)!;
};
const ended = (id: string) =>
  eventually(async () => {
    const replay = await replayOf(id);
    return replay.state !== 'running' && replay;
  }, 30_000);
const names = async () =>
  (await app.database.query<{ name: string }>('SELECT name FROM people ORDER BY name')).map(
    ({ name }) => name,
  );
const members = async () =>
  (await peer.admin.describeGroups([GROUP])).groups[0]!.members.map(({ memberId }) => memberId);
/** Once all is committed that was sent. */
const offsets = () =>
  eventually(async () => {
    const [committed] = await peer.admin.fetchOffsets({ groupId: GROUP, topics: [TOPIC] });
    const ends = await peer.admin.fetchTopicOffsets(TOPIC);
    const of = new Map(committed!.partitions.map(({ partition, offset }) => [partition, offset]));
    return ends.every(({ partition, high }) => high === '0' || of.get(partition) === high) && [...of].sort();
  }, 30_000);
/** What the topic has from before is of other tests. */
const BEGUN = new Date().toISOString();
const now = () => new Date(Date.now() + 60_000).toISOString();
/** As in a database that was restored: these were not applied. */
const forget = async (some: string[]) => {
  await app.database.query('DELETE FROM message_inbox WHERE message_id = ANY ($1)', [some]);
  await app.database.query('DELETE FROM people WHERE name = ANY ($1)', [some]);
};

it('what was applied is left as it is, what was not is applied once, and the group does not notice', async () => {
  const sent = Array.from({ length: 20 }, (_, n) => `m${String(n).padStart(2, '0')}`);
  // One by one: of a batch that a partition has refused, as its leader has only just begun, kafkajs sends all once more.
  for (const name of sent)
    await peer.emit(TOPIC, { key: name, value: JSON.stringify({ name }), headers: { 'message-id': name } });
  await peer.emit(TOPIC, { key: 'bad', value: '{"name":1}', headers: { 'message-id': 'bad' } });
  await peer.ask(TOPIC, JSON.stringify({ name: 'asked' }), { key: 'asked' });
  await eventually(async () => (await names()).length === 21, 30_000);
  const [before, group] = [await offsets(), await members()];
  const events = async () => (await app.database.query('SELECT FROM message_dead_letter')).length;
  expect(await eventually(events)).toBe(1);
  await forget(['m03', 'm07', 'm11', 'asked']);
  const { status, body } = await act('', { topic: TOPIC, from: BEGUN, to: now() });
  expect([status, body]).toEqual([200, { id: expect.any(String) }]);
  const replay = await ended(body.id);
  expect(replay).toMatchObject({
    ...{ state: 'done', topic: TOPIC, actor: 'anybody', error: null, endedAt: expect.any(String) },
    progress: { total: 22, read: 22, applied: 3, repeated: 18, skipped: 1, dead: 0, parked: 0 },
  });
  // Whoever asked was told what became of it.
  expect(await names()).toEqual(sent);
  expect(await events()).toBe(1);
  expect(await offsets()).toEqual(before);
  expect(await members()).toEqual(group);
  expect(await app.database.query('SELECT action, topic, reason, details FROM message_audit')).toEqual([
    {
      ...{ action: 'replay-window', topic: TOPIC, reason: 'INC-1' },
      details: { id: body.id, from: replay.from, to: replay.to },
    },
  ]);
});

it('reads the part of the topic that lies in the window, and no more', async () => {
  const end = new Date().toISOString();
  await peer.emit(TOPIC, { key: 'later', value: '{"name":"later"}', headers: { 'message-id': 'later' } });
  await eventually(async () => (await names()).includes('later'), 30_000);
  await offsets();
  await forget(['later', 'm05']);
  const { body } = await act('', { topic: TOPIC, from: BEGUN, to: end });
  expect((await ended(body.id)).progress).toMatchObject({ total: 22, applied: 1 });
  expect(await names()).not.toContain('later');
  const rest = await act('', { topic: TOPIC, from: end, to: now() });
  expect((await ended(rest.body.id)).progress).toMatchObject({ total: 1, read: 1, applied: 1 });
});

it('reads nothing that the group has yet to handle', async () => {
  await offsets();
  await forget(['m09']);
  await app.database.query('BEGIN');
  await app.database.query('LOCK TABLE people');
  await peer.emit(TOPIC, { key: 'm09', value: '{"name":"ahead"}', headers: { 'message-id': 'ahead' } });
  await eventually(async () => (await app.database.query(WAITS_FOR_PEOPLE)).length > 0);
  const { body } = await act('', { topic: TOPIC, from: BEGUN, to: now() });
  await app.database.query('COMMIT');
  expect((await ended(body.id)).progress).toMatchObject({ total: 23, read: 23, applied: 1 });
  await eventually(async () => (await names()).includes('ahead'), 30_000);
});

it('is one at a time, and ends when it is cancelled', async () => {
  await forget(['m01', 'm02']);
  await app.database.query('BEGIN');
  await app.database.query('LOCK TABLE people');
  const window = { topic: TOPIC, from: BEGUN, to: now() };
  const { body } = await act('', window);
  const second = await act('', window);
  expect([second.status, second.body.type]).toEqual([409, '/problems/replay-running']);
  await eventually(async () => (await app.database.query(WAITS_FOR_PEOPLE)).length > 0);
  expect((await act(`/${body.id}/cancel`, {})).status).toBe(200);
  await app.database.query('COMMIT');
  expect(await ended(body.id)).toMatchObject({ state: 'cancelled' });
  expect((await act(`/${body.id}/cancel`, {})).status).toBe(404);
  const again = await act('', window);
  expect(await ended(again.body.id)).toMatchObject({ state: 'done' });
  expect(await names()).toEqual(expect.arrayContaining(['m01', 'm02']));
});

it('another instance shows it and may cancel it, and one that is gone holds up nobody', async () => {
  const [{ id }] = (await app.database.query(
    `INSERT INTO message_replay (consumer, topic, "from", "to", actor, progress) VALUES ($1, $2, now(), now(), 'bob', '{"read":7}') RETURNING id`,
    [GROUP, TOPIC],
  )) as [{ id: string }];
  expect(await replayOf(id)).toMatchObject({ state: 'running', actor: 'bob', progress: { read: 7 } });
  expect((await act(`/${id}/cancel`, {})).status).toBe(200);
  expect(await app.database.query('SELECT is_cancelled FROM message_replay WHERE id = $1', [id])).toEqual([{ is_cancelled: true }]); // prettier-ignore
  const window = { topic: TOPIC, from: BEGUN, to: now() };
  expect((await act('', window)).status).toBe(409);
  await app.database.query(`UPDATE message_replay SET seen_at = now() - interval '1 minute' WHERE id = $1`, [
    id,
  ]);
  expect(await replayOf(id)).toMatchObject({ state: 'gone' });
  const { status, body } = await act('', window);
  expect(status).toBe(200);
  await ended(body.id);
  expect(await replayOf(id)).toMatchObject({ state: 'failed', error: expect.stringContaining('is gone') });
});

it.each([
  ['that ends before it begins', { topic: TOPIC, from: now(), to: BEGUN }, 400, '#/from'],
  [
    'of a time that nobody remembers',
    { topic: TOPIC, from: '2020-01-01T00:00:00Z', to: now() },
    400,
    '#/from',
  ],
  ['of a topic that nobody handles', { topic: 'strangers', from: BEGUN, to: now() }, 400, '#/topic'],
  ['without a time', { topic: TOPIC, from: 'yesterday', to: now() }, 400, '#/from'],
])('a window %s is refused', async (_title, window, status, pointer) => {
  const answer = await act('', window);
  expect([answer.status, answer.body.errors[0]!.pointer]).toEqual([status, pointer]);
});

it('without Kafka there is none, and it is said so', async () => {
  const alone = await startPeopleApp();
  try {
    const body = JSON.stringify({ topic: TOPIC, from: BEGUN, to: now(), reason: 'x' });
    const answer = await alone.send('POST', '/messages/replays', body);
    expect([answer.status, ((await answer.json()) as Answer).type]).toEqual([
      503,
      '/problems/replay-unavailable',
    ]);
  } finally {
    await alone.close();
  }
});
