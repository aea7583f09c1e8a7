import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, type Reply, startKafkaApp } from '../support/kafka.js';
import { fatalError, type HeldAnswer, startLossyProxy } from '../support/lossy-proxy.js';
import { createDatabase } from '../support/test-database.js';

/** An outage ends when there is a reply, or after this long, for those who wait for its end. */
const OUTAGE_MS = 1500;

const groupId = `lost-answers-${randomUUID()}`;

const database = duringTests(() => createDatabase());
const proxy = duringTests(() => startLossyProxy(database.url));
const peer = duringTests(() => new KafkaPeer());
const app = duringTests(() =>
  startKafkaApp(peer, {
    DATABASE_URL: proxy.url,
    DB_ACQUIRE_TIMEOUT_MS: '1000',
    KAFKA_GROUP_ID: groupId,
  }),
);
afterEach(() => proxy.recover());

/** The answer of the next COMMIT of a message's unit of work; the relay's are none. */
function holdCommitOfMessage(): Promise<HeldAnswer> {
  return new Promise((resolve) => {
    let handling: object | undefined;
    let isHeld = false;
    proxy.onRequest = (piece, connection) => {
      if (piece.includes('nestjs_people_inbox_claim')) handling ??= connection;
      if (isHeld || connection !== handling || !piece.includes('COMMIT\0')) return 'pass';
      isHeld = true;
      return resolve;
    };
  });
}

/** Messages that are not handled for good. */
async function lag(topic: string): Promise<number> {
  const [ends, [group]] = await Promise.all([
    peer.admin.fetchTopicOffsets(topic),
    peer.admin.fetchOffsets({ groupId, topics: [topic] }),
  ]);
  const done = new Map(group!.partitions.map(({ partition, offset }) => [partition, Number(offset)]));
  return ends.reduce((sum, { partition, high, low }) => {
    return sum + Number(high) - Math.max(Number(low), done.get(partition) ?? 0);
  }, 0);
}

interface Command {
  topic: string;
  value: (label: string, id: string) => object;
}

const COMMANDS: Command[] = [
  { topic: 'people.create', value: (name) => ({ name }) },
  { topic: 'people.create-many', value: (name) => ({ people: [{ name }] }) },
  { topic: 'people.update', value: (name, id) => ({ id, name }) },
  { topic: 'people.delete', value: (_, id) => ({ id }) },
];

let labels = 0;

async function prepare({ topic, value }: Command) {
  const label = `${topic} ${++labels}`;
  const { id } = await app.people.create({ name: `before ${label}` });
  const rowsOf = (column: string, text: string) =>
    database.query(`SELECT FROM people WHERE ${column} = $1`, [text]);
  return {
    value: JSON.stringify(value(label, id)),
    /** How often the change is in the database. */
    made: async () =>
      topic === 'people.delete' ? 1 - (await rowsOf('id', id)).length : (await rowsOf('name', label)).length,
  };
}

const LOSSES: Record<string, (answer: HeldAnswer, replied: Promise<unknown>) => unknown> = {
  'with its connection': (answer) => answer.cut(),
  'while a pooler says 08P01': (answer) => answer.tell(fatalError('08P01', 'server conn crashed?')),
  'while a pooler says 58000': (answer) => answer.tell(fatalError('58000', 'error reading from server')),
  'while the server stops': (answer) => answer.tell(fatalError('57P01', 'terminating connection due to administrator command')), // prettier-ignore
  'and the server is away for a while': async (_, replied) => {
    await proxy.refuse();
    await Promise.race([replied, sleep(OUTAGE_MS)]);
    await proxy.recover();
  },
  'and the server hangs for a while': async (_, replied) => {
    proxy.hang();
    await Promise.race([replied, sleep(OUTAGE_MS)]);
    await proxy.recover();
  },
};

describe.each(COMMANDS)(
  'a message of $topic whose change is made and whose COMMIT is not answered',
  (command) => {
    it.each(Object.keys(LOSSES))(
      '(%s) is told to its sender as done or as unknown, and is made once',
      async (loss) => {
        const { value, made } = await prepare(command);
        const held = holdCommitOfMessage();
        const reply = peer.ask(command.topic, value);
        await LOSSES[loss]!(await held, reply);
        const { error } = await reply;
        expect({ error, made: await made() }).toEqual({ error: orUnknown(error), made: 1 });
      },
    );

    it.each(Object.keys(LOSSES))('(%s) is made once, and is no dead letter', async (loss) => {
      const { value, made } = await prepare(command);
      const messageId = randomUUID();
      const held = holdCommitOfMessage();
      await peer.emit(command.topic, { value, headers: { 'message-id': messageId } });
      await LOSSES[loss]!(await held, sleep(OUTAGE_MS));
      await proxy.recover();
      await eventually(async () => (await lag(command.topic)) === 0, 30_000);
      const dead = await database.query('SELECT FROM message_dead_letter WHERE message_id = $1', [messageId]);
      expect({ made: await made(), dead: dead.length }).toEqual({ made: 1, dead: 0 });
    });
  },
);

/** What may be told of a change that is made. */
const orUnknown = (error: Reply['error']) =>
  error?.code === 'TRANSACTION_OUTCOME_UNKNOWN' && !error.retryable ? error : undefined;
