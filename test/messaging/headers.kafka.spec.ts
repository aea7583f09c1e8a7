import { Controller } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import { randomUUID } from 'node:crypto';
import { decompress } from '../../src/messaging/records/codecs.js';
import { KAFKA_CLIENTS } from '../../src/messaging/kafka/clients.js';
import type { RawHeaders } from '../../src/messaging/kafka-driver.js';
import { type BatchRecord, readBatches } from '../../src/messaging/records/batches.js';
import { RECORD_LIMITS } from '../../src/messaging/records/limits.js';
import { Transactional } from '../../src/transactions/transactional.decorator.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { broker, connectPeer } from '../support/kafka.js';
import { count, counters, createCountersDatabase, startConsumingHost } from '../support/messages-host.js';
import { fetchRaw, sendRaw } from '../support/raw-records.js';

const BINARY = Buffer.from([0xff, 0xfe, 0x00, 0x80]);
const bytes = (text: string) => Buffer.from(text);

/** Headers that no map can hold, in an order that counts. */
const NASTY: [string, RawHeaders][] = [
  ['once null, then not', [['trace', null], ['trace', bytes('1')]]],
  ['once, then null', [['trace', bytes('1')], ['trace', null]]],
  ['many times, with others in between', [['a', bytes('1')], ['b', null], ['a', bytes('2')], ['a', bytes('2')], ['', bytes('')], ['a', null]]],
  ['named as what objects have', [['constructor', bytes('1')], ['__proto__', null], ['__proto__', bytes('2')], ['toString', bytes('')]]],
  ['without a name', [['', null], ['', bytes('x')]]],
  ['of bytes', [[BINARY, BINARY], [Buffer.from([0xc0]), null], [BINARY, bytes('2')]]],
]; // prettier-ignore

/** The records of partition 0, as the broker has them. */
async function recordsOf(topic: string): Promise<BatchRecord[]> {
  const reading = { limits: RECORD_LIMITS, left: RECORD_LIMITS.batchBytes, decompress };
  return (await readBatches(await fetchRaw(broker(), topic), reading)).flatMap(({ records }) => records);
}
const isOurs = ([name]: RawHeaders[number]) =>
  String(name).startsWith('kafka_dlt-') || name === 'people-attempts';

const peer = duringTests(() => connectPeer());

describe.each(KAFKA_CLIENTS)('headers, by %s', (driver) => {
  const topic = `headers-${randomUUID()}`;
  const letters = `${topic}-dlt`;
  let isRepaired = false;

  @Controller()
  class Handlers {
    @MessagePattern(topic)
    @Transactional()
    async take(@Payload() { name }: { name: string }) {
      if (!isRepaired && name.startsWith('bad')) throw new Error('not yet');
      await count(name);
      return { counted: name };
    }
  }

  beforeAll(() => peer.createTopics([topic, letters]));
  const database = duringTests(() => createCountersDatabase());
  const host = duringTests(() =>
    startConsumingHost(database, { controllers: [Handlers], transport: { driver, maxAttempts: 1 } }),
  );
  beforeEach(() => {
    isRepaired = false;
  });

  const handled = (name: string) => eventually(async () => (await counters(database))[name] === 1);

  it.each(NASTY)('%s: dead-lettered and replayed as they came', async (_name, headers) => {
    const name = `bad ${randomUUID()}`;
    const value = JSON.stringify({ name });
    const offset = await sendRaw(broker(), topic, [{ key: 'k', value, headers }]);
    // Others go on meanwhile.
    const bystander = randomUUID();
    await sendRaw(broker(), topic, [{ key: 'other', value: JSON.stringify({ name: bystander }) }]);
    await handled(bystander);

    const isLetter = ({ value: found }: BatchRecord) => String(found) === value;
    const letter = await eventually(async () => (await recordsOf(letters)).find(isLetter));
    expect(letter.rawHeaders!.slice(0, headers.length)).toEqual(headers);
    const ours = letter.rawHeaders!.slice(headers.length);
    expect(ours.every(isOurs)).toBe(true);
    expect(ours).toContainEqual(['kafka_dlt-original-offset', bytes(String(offset))]);

    isRepaired = true;
    const [row] = await database.query<{ message_id: string }>(
      'SELECT message_id FROM message_dead_letter WHERE topic = $1 AND "offset" = $2',
      [topic, String(offset)],
    );
    expect(await host.store.deadLetters.replay({ id: row!.message_id })).toBe(1);
    await handled(name);
    const [, again] = (await recordsOf(topic)).filter(isLetter);
    expect(again!.rawHeaders).toEqual([...headers, ['message-id', bytes(row!.message_id)]]);
  });

  it('a message whose headers say nothing wrong is handled with any of them', async () => {
    for (const [, headers] of NASTY) {
      const name = randomUUID();
      await sendRaw(broker(), topic, [{ key: 'k', value: JSON.stringify({ name }), headers }]);
      await handled(name);
    }
  });
});
