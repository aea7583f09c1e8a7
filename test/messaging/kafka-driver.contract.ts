import { Admin as GroupAdmin } from '@platformatic/kafka';
import { type Admin, Kafka, logLevel, type Producer } from 'kafkajs';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type EmbeddedKafka, startEmbeddedKafka } from '../../src/dev/embedded-kafka.js';
import {
  CommitRefusedError,
  type KafkaClientSettings,
  type KafkaDriver,
  type KafkaProducer,
  OffsetOutOfRangeError,
  type OutgoingRecord,
  RecordRefusedError,
} from '../../src/messaging/kafka-driver.js';
import { eventually } from '../support/barrier.js';
import { createTopics } from '../support/kafka.js';
import { Member, type MemberOptions } from './kafka-driver.member.js';

/** The shortest that Kafka takes by default. */
const SESSION_MS = 6_000;
const HEARTBEAT_MS = 300;
/** Starting Kafka's JVM takes longer than other tests. */
const MINUTES = 300_000;
/** What a commit, a rebalance or an expulsion may take on a busy machine. */
const PATIENCE_MS = 40_000;

/** What every {@link KafkaDriver} must do, on a real Kafka. `create` may be called often; a driver needs no closing. */
export function describeDriverContract(
  name: string,
  create: (settings: KafkaClientSettings) => KafkaDriver,
): void {
  describe(`${name} as a Kafka driver`, () => {
    let brokers: string[];
    let driver: KafkaDriver;
    let producer: KafkaProducer;
    let peer: Kafka;
    let admin: Admin;
    let foreign: Producer;
    /** kafkajs' sets offsets by joining the group, for 5 s, and removes no members. */
    let groups: GroupAdmin;
    const members: Member[] = [];

    beforeAll(async () => {
      brokers = process.env.TEST_KAFKA_BROKERS!.split(',');
      driver = create({ brokers, clientId: 'contract' });
      peer = new Kafka({ brokers, logLevel: logLevel.NOTHING });
      admin = peer.admin();
      groups = new GroupAdmin({ clientId: 'contract', bootstrapBrokers: brokers });
      foreign = peer.producer({ idempotent: true, transactionalId: randomUUID(), maxInFlightRequests: 1 });
      [producer] = await Promise.all([driver.producer(), admin.connect(), foreign.connect()]);
    });

    afterEach(async () => {
      await Promise.all(members.splice(0).map((member) => member.close()));
    });

    afterAll(async () => {
      await Promise.all([producer.close(), admin.disconnect(), foreign.disconnect(), groups.close()]);
    });

    /** A topic of the test's own. */
    const newTopic = async (partitions = 1, topic = `contract.${randomUUID()}`): Promise<string> => {
      await createTopics(admin, [topic], partitions);
      return topic;
    };
    const join = async (topics: (string | RegExp)[], options: MemberOptions = {}): Promise<Member> => {
      const member = await Member.join(options.driver ?? driver, {
        topics,
        sessionTimeoutMs: SESSION_MS,
        heartbeatIntervalMs: HEARTBEAT_MS,
        ...options,
      });
      members.push(member);
      return member;
    };
    const committed = async (groupId: string, topic: string, partition = 0): Promise<string | undefined> => {
      const [found] = await admin.fetchOffsets({ groupId, topics: [topic] });
      return found?.partitions.find((one) => one.partition === partition)?.offset;
    };
    const commitFor = (groupId: string, topic: string, offset: bigint): Promise<void> =>
      groups.alterConsumerGroupOffsets({
        groupId,
        topics: [{ name: topic, partitionOffsets: [{ partition: 0, offset }] }],
      });
    const deleteRecordsBefore = (topic: string, offset: string): Promise<boolean> =>
      // kafkajs asks the leader it believes in, and believes in none at first.
      eventually(() =>
        admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset }] }).then(() => true, () => false),
      ); // prettier-ignore
    const numbered = (topic: string, from: number, to: number, partition = 0): OutgoingRecord[] =>
      Array.from({ length: to - from }, (_, index) => ({ topic, partition, value: String(from + index) }));
    const numbers = (from: number, to: number): string[] =>
      numbered('', from, to).map(({ value }) => String(value));

    /** A member that begins behind the last record: what is sent before its position is settled does not reach it. */
    const sendUntilReceived = (topic: string, member: Member): Promise<boolean> =>
      eventually(async () => {
        await producer.send([{ topic, partition: 0, value: 'new' }]);
        return member.records().length > 0;
      }, PATIENCE_MS);
    /** Resolves when no fetch is under way any more that was sent before: the partition 1 has got records in two. */
    const fetchesAreNew = async (topic: string, member: Member): Promise<void> => {
      for (let round = 0; round < 3; round++) {
        const before = member.values(topic, 1).length;
        await producer.send([{ topic, partition: 1, value: 'fetched' }]);
        await eventually(() => member.values(topic, 1).length > before);
      }
    };

    describe('topics', () => {
      it('creates the topics that are missing with the partitions asked for, and leaves the others alone', async () => {
        const old = await newTopic(2);
        const made = `contract.${randomUUID()}`;
        const settings = { partitions: 5, replication: undefined };
        await driver.createMissingTopics([old, made, made], settings);
        await driver.createMissingTopics([old, made], { ...settings, partitions: 7 });
        await driver.createMissingTopics([], settings);

        const { topics } = await admin.fetchTopicMetadata({ topics: [old, made] });
        const counts = Object.fromEntries(topics.map((topic) => [topic.name, topic.partitions.length]));
        expect(counts).toEqual({ [old]: 2, [made]: 5 });
        await producer.send([{ topic: made, partition: 4, value: 'at once' }]);
      });

      it('says why a topic can not be created', async () => {
        const settings = { partitions: 1, replication: undefined };
        await expect(driver.createMissingTopics(['not a name'], settings)).rejects.toThrow(/not a name/);
      });

      it('consumes the topics that match a regular expression, and no other', async () => {
        const prefix = `contract.${randomUUID()}`;
        const [first, second] = await Promise.all([
          newTopic(1, `${prefix}.a.1`),
          newTopic(2, `${prefix}.a.2`),
        ]);
        const other = await newTopic(1, `${prefix}.b.1`);
        const named = await newTopic();
        const member = await join([new RegExp(`^${prefix}\\.a\\.`), named]);
        await member.assignedTo(4);
        expect(new Set(member.partitions().map(({ topic }) => topic))).toEqual(
          new Set([first, second, named]),
        );

        await producer.send(
          [first, second, other, named].map((topic) => ({ topic, partition: 0, value: topic })),
        );
        await member.received(3);
        expect(new Set(member.values())).toEqual(new Set([first, second, named]));
      });
    });

    describe('records', () => {
      it('brings every record once, those of a partition in order', async () => {
        const topic = await newTopic(3);
        const records = [0, 1, 2].flatMap((partition) => numbered(topic, 0, 400, partition));
        // Not one partition after the other.
        const mixed = records.map((_, index) => records[(index % 3) * 400 + Math.floor(index / 3)]!);
        for (let at = 0; at < mixed.length; at += 300) await producer.send(mixed.slice(at, at + 300));
        const member = await join([topic]);
        await member.received(1200);
        for (const partition of [0, 1, 2]) expect(member.values(topic, partition)).toEqual(numbers(0, 400));
        expect(member.gaps()).toEqual([]);
      });

      it('brings keys, values, headers and the time as they were sent', async () => {
        const topic = await newTopic();
        const binary = Buffer.from([0, 255, 128, 10, 0]);
        const large = randomBytes(900_000);
        const sent: OutgoingRecord[] = [
          {
            topic,
            key: binary,
            value: binary,
            headers: { text: 'ü 漢 🙂', bytes: binary, again: ['1', binary, '1'] },
          },
          { topic, key: 'tombstone', value: null },
          { topic, key: '', value: '' },
          { topic, key: null, value: 'ü 漢 🙂', headers: { ü漢: '', gone: undefined, ['__proto__']: 'x' } },
          { topic, value: large },
        ];
        const before = Date.now();
        for (const record of sent) await producer.send([record]);
        const member = await join([topic]);
        await member.received(5);
        const [first, tombstone, empty, foreignText, big] = member.records();
        expect(first).toMatchObject({ topic, partition: 0, offset: 0n, key: binary, value: binary });
        expect(Object.keys(first!.headers).sort()).toEqual(['again', 'bytes', 'text']);
        expect(first!.headers.text).toEqual(Buffer.from('ü 漢 🙂'));
        expect(first!.headers.bytes).toEqual(binary);
        expect(first!.headers.again).toEqual([Buffer.from('1'), binary, Buffer.from('1')]);
        expect(tombstone).toMatchObject({ key: Buffer.from('tombstone'), value: null });
        expect(empty).toMatchObject({ key: Buffer.alloc(0), value: Buffer.alloc(0) });
        expect(foreignText).toMatchObject({ key: null, value: Buffer.from('ü 漢 🙂') });
        expect(Object.keys(foreignText!.headers).sort()).toEqual(['__proto__', 'ü漢']);
        expect(big!.value!.equals(large)).toBe(true);
        for (const { timestamp } of member.records())
          expect(Number(timestamp)).toBeGreaterThanOrEqual(before);
      });

      it('brings what another client has sent, compressed or not', async () => {
        const topic = await newTopic();
        const { CompressionTypes } = await import('kafkajs');
        for (const compression of [CompressionTypes.None, CompressionTypes.GZIP])
          await foreign.send({
            topic,
            compression,
            messages: [{ key: 'k', value: 'v', headers: { h: ['1', '2'] } }],
          });
        const member = await join([topic]);
        await member.received(2);
        for (const { key, value, headers } of member.records())
          expect({ key, value, h: headers.h }).toEqual({
            key: Buffer.from('k'),
            value: Buffer.from('v'),
            h: [Buffer.from('1'), Buffer.from('2')],
          });
      });

      it("puts a key into the partition that Java's client puts it into", async () => {
        const topic = await newTopic(7);
        const known = Object.fromEntries(
          Object.entries(JAVA_MURMUR2).map(([key, hash]) => [key, (hash & 0x7fffffff) % 7]),
        );
        await producer.send(Object.keys(known).map((key) => ({ topic, key, value: key })));
        const member = await join([topic]);
        await member.received(6);
        expect(
          Object.fromEntries(member.records().map(({ key, partition }) => [String(key), partition])),
        ).toEqual(known);
      });

      it('sends records to several topics and partitions that are together larger than a broker takes at once', async () => {
        const [one, two] = await Promise.all([newTopic(), newTopic(2)]);
        const value = randomBytes(300_000);
        const records = [0, 1, 2, 3, 4, 5].flatMap((at) => [
          { topic: one, key: String(at), value },
          { topic: two, partition: 1, key: String(at), value },
        ]);
        await producer.send(records);
        const member = await join([one, two]);
        await member.received(12);
        for (const topic of [one, two])
          expect(
            member
              .records()
              .filter((record) => record.topic === topic)
              .map(({ key }) => String(key)),
          ).toEqual(numbers(0, 6));
      });

      // @trap records of aborted transactions, and the marks of transactions
      it('sees nothing of aborted transactions, and passes their records and the ends of transactions', async () => {
        const topic = await newTopic();
        const transact = async (values: string[], end: 'commit' | 'abort'): Promise<void> => {
          const transaction = await foreign.transaction();
          await transaction.send({ topic, messages: values.map((value) => ({ value, partition: 0 })) });
          await transaction[end]();
        };
        await transact(['aborted 1', 'aborted 2'], 'abort');
        await transact(['committed'], 'commit');
        await transact(['aborted 3'], 'abort');
        await producer.send([{ topic, value: 'plain' }]);
        await transact(['aborted 4'], 'abort');
        const end = 10n;
        // Kafka writes the end of a transaction after it has told the producer.
        await eventually(async () => (await admin.fetchTopicOffsets(topic))[0]!.high === String(end));

        const member = await join([topic]);
        await eventually(() => member.nextOffset(topic) === end, PATIENCE_MS);
        expect(member.values()).toEqual(['committed', 'plain']);
        await member.consumer.commit([{ topic, partition: 0, offset: end }]);
        expect(await committed(member.groupId, topic)).toBe('10');
      });

      it('refuses a record whose topic does not exist or can not, makes none, and sends the next', async () => {
        const topic = await newTopic();
        const missing = `contract.${randomUUID()}`;
        for (const wrong of [missing, 'not a name']) {
          const error: unknown = await producer
            .send([{ topic: wrong, value: 'x' }])
            .catch((reason: unknown) => reason);
          expect(error).toBeInstanceOf(RecordRefusedError);
          expect(error).toMatchObject({ isTooLarge: false });
        }
        expect(await admin.listTopics()).not.toContain(missing);
        await producer.send([{ topic, value: 'x' }]);
      });

      it('refuses a record for a topic that was deleted while it was sent to, and sends to others', async () => {
        const [kept, gone] = await Promise.all([newTopic(), newTopic()]);
        await producer.send([kept, gone].map((topic) => ({ topic, value: 'x' })));
        await admin.deleteTopics({ topics: [gone] });
        await eventually(async () => !(await admin.listTopics()).includes(gone));
        await eventually(
          async () => (await producer.send([{ topic: gone, value: 'x' }]).catch((error: unknown) => error)) instanceof RecordRefusedError,
        ); // prettier-ignore
        await producer.send([{ topic: kept, value: 'y' }]);
        const member = await join([kept]);
        await member.received(2);
        expect(member.values()).toEqual(['x', 'y']);
      });

      it('refuses a record that is too large, and sends the next', async () => {
        const topic = await newTopic();
        const error: unknown = await producer
          .send([{ topic, value: randomBytes(1_100_000) }])
          .catch((reason: unknown) => reason);
        expect(error).toBeInstanceOf(RecordRefusedError);
        expect(error).toMatchObject({ isTooLarge: true });
        await producer.send([{ topic, value: 'small' }]);
        const member = await join([topic]);
        await member.received(1);
        expect(member.values()).toEqual(['small']);
      });
    });

    describe('offsets', () => {
      it('goes on at the offset that was committed', async () => {
        const topic = await newTopic();
        await producer.send(numbered(topic, 0, 10));
        const first = await join([topic]);
        await first.received(10);
        await first.consumer.commit([{ topic, partition: 0, offset: 4n }]);
        expect(await committed(first.groupId, topic)).toBe('4');
        await first.close();

        const second = await join([topic], { groupId: first.groupId });
        await second.received(6);
        expect(second.records()[0]!.offset).toBe(4n);
        expect(second.values()).toEqual(numbers(4, 10));
      });

      it('begins at the first record there still is, or behind the last one, when nothing was committed', async () => {
        const topic = await newTopic();
        await producer.send(numbered(topic, 0, 5));
        await deleteRecordsBefore(topic, '2');
        const [earliest, latest] = await Promise.all([
          join([topic]),
          join([topic], { fromBeginning: false }),
        ]);
        await Promise.all([earliest.received(3), latest.assignedTo(1)]);
        expect(earliest.values()).toEqual(numbers(2, 5));
        await sendUntilReceived(topic, latest);
        expect(new Set(latest.values())).toEqual(new Set(['new']));
      });

      const outOfRange = async (): Promise<{ topic: string; groupId: string }> => {
        const topic = await newTopic();
        const groupId = `contract-${randomUUID()}`;
        await producer.send(numbered(topic, 0, 10));
        await commitFor(groupId, topic, 2n);
        await deleteRecordsBefore(topic, '6');
        return { topic, groupId };
      };

      it('stops when the records at the committed offset are gone, and leaves the offset as it is', async () => {
        const { topic, groupId } = await outOfRange();
        const member = await join([topic], { groupId, onOffsetOutOfRange: 'stop' });
        const error = await eventually(() => member.failure, PATIENCE_MS);
        expect(error).toBeInstanceOf(OffsetOutOfRangeError);
        expect(error.message).toContain(topic);
        expect(member.records()).toEqual([]);
        await member.close();
        expect(await committed(groupId, topic)).toBe('2');
      });

      it('fetches nothing that is resumed before it is known that the committed offset is there', async () => {
        const { topic, groupId } = await outOfRange();
        const member = await join([topic], { groupId, onOffsetOutOfRange: 'stop' });
        const error = await eventually(() => {
          member.consumer.resume([{ topic, partition: 0 }]);
          return member.failure;
        }, PATIENCE_MS);
        expect(error).toBeInstanceOf(OffsetOutOfRangeError);
        expect(member.records()).toEqual([]);
        await member.close();
        expect(await committed(groupId, topic)).toBe('2');
      });

      it('stops when the committed offset is behind the last record', async () => {
        const { topic, groupId } = await outOfRange();
        await commitFor(groupId, topic, 50n);
        const member = await join([topic], { groupId, onOffsetOutOfRange: 'stop' });
        expect(await eventually(() => member.failure, PATIENCE_MS)).toBeInstanceOf(OffsetOutOfRangeError);
        await member.close();
        expect(await committed(groupId, topic)).toBe('50');
      });

      it('stops when the records to be read next go while it consumes', async () => {
        const topic = await newTopic(2);
        await producer.send([...numbered(topic, 0, 3, 0), ...numbered(topic, 0, 3, 1)]);
        const member = await join([topic]);
        await member.received(6);
        await member.consumer.commit([{ topic, partition: 0, offset: 1n }]);
        member.consumer.pause([{ topic, partition: 0 }]);
        await fetchesAreNew(topic, member);
        await producer.send(numbered(topic, 3, 8));
        await deleteRecordsBefore(topic, '8');
        member.consumer.resume([{ topic, partition: 0 }]);
        expect(await eventually(() => member.failure, PATIENCE_MS)).toBeInstanceOf(OffsetOutOfRangeError);
        await member.close();
        expect(await committed(member.groupId, topic)).toBe('1');
      });

      it('goes on with the first record there is when told so', async () => {
        const { topic, groupId } = await outOfRange();
        const member = await join([topic], { groupId, onOffsetOutOfRange: 'earliest' });
        await member.received(4);
        expect(member.values()).toEqual(numbers(6, 10));
      });

      it('goes on behind the last record when told so', async () => {
        const { topic, groupId } = await outOfRange();
        const member = await join([topic], { groupId, onOffsetOutOfRange: 'latest' });
        await member.assignedTo(1);
        await sendUntilReceived(topic, member);
        expect(new Set(member.values())).toEqual(new Set(['new']));
        expect(member.failure).toBeUndefined();
      });
    });

    describe('groups', () => {
      it('shares the partitions among the members, and gives all to the one that is left', async () => {
        const topic = await newTopic(4);
        const first = await join([topic]);
        await first.assignedTo(4);
        const second = await join([topic], { groupId: first.groupId });
        await Promise.all([first.assignedTo(2), second.assignedTo(2)]);
        const all = [...first.partitions(), ...second.partitions()].map(({ partition }) => partition);
        expect(all.sort()).toEqual([0, 1, 2, 3]);
        expect(first.events).toEqual(['assigned 4', 'revoking', 'assigned 2']);

        await second.close();
        await first.assignedTo(4);
        expect(first.events).toEqual(['assigned 4', 'revoking', 'assigned 2', 'revoking', 'assigned 4']);
        await producer.send(
          [0, 1, 2, 3].map((partition) => ({ topic, partition, value: String(partition) })),
        );
        await first.received(4);
        expect(first.values().sort()).toEqual(numbers(0, 4));
      });

      // @trap old and new instances, with other client libraries, in one group
      it.each(['first', 'last'])(
        'shares a group with members of kafkajs, also when it is there %s',
        async (when) => {
          const topic = await newTopic(4);
          const groupId = `contract-${randomUUID()}`;
          const other = peer.consumer({ groupId, sessionTimeout: SESSION_MS, heartbeatInterval: HEARTBEAT_MS, maxWaitTimeInMs: 100 }); // prettier-ignore
          let theirs: number[] = [];
          other.on(
            other.events.GROUP_JOIN,
            ({ payload }) => (theirs = payload.memberAssignment[topic] ?? []),
          );
          const start = async (): Promise<void> => {
            await other.connect();
            await other.subscribe({ topic });
            await other.run({ eachMessage: () => Promise.resolve() });
          };
          try {
            if (when === 'last') await start();
            const member = await join([topic], { groupId });
            if (when === 'first') {
              await member.assignedTo(4);
              await start();
            }
            await member.assignedTo(2);
            await eventually(() => theirs.length === 2, PATIENCE_MS);
            const own = member.partitions().map(({ partition }) => partition);
            expect([...own, ...theirs].sort()).toEqual([0, 1, 2, 3]);
          } finally {
            await other.disconnect();
          }
        },
      );

      it('tells what is assigned before the first record of it, and takes the commits that are made when revoking', async () => {
        const topic = await newTopic(2);
        await producer.send([...numbered(topic, 0, 3, 0), ...numbered(topic, 0, 3, 1)]);
        const first = await join([topic], { commitsWhenRevoking: true });
        await first.received(6);
        const second = await join([topic], { groupId: first.groupId });
        await Promise.all([first.assignedTo(1), second.assignedTo(1)]);
        expect(first.log.slice(0, 2)).toEqual(['assigned 2', 'records']);
        expect(await Promise.all(first.commits)).toEqual(['committed']);
        await producer.send([...numbered(topic, 3, 4, 0), ...numbered(topic, 3, 4, 1)]);
        await Promise.all([first.received(7), second.received(1)]);
        expect(second.values()).toEqual(['3']);
        expect(second.log.slice(0, 2)).toEqual(['assigned 1', 'records']);
      });

      it('refuses the commit of a partition that has gone to another member', async () => {
        const topic = await newTopic(2);
        await producer.send([...numbered(topic, 0, 3, 0), ...numbered(topic, 0, 3, 1)]);
        const first = await join([topic]);
        await first.received(6);
        const second = await join([topic], { groupId: first.groupId });
        await Promise.all([first.assignedTo(1), second.assignedTo(1)]);
        const [lost] = second.partitions();
        const [kept] = first.partitions();
        await expect(first.consumer.commit([{ ...lost!, offset: 3n }])).rejects.toBeInstanceOf(
          CommitRefusedError,
        );
        await first.consumer.commit([{ ...kept!, offset: 3n }]);
        expect(await committed(first.groupId, topic, lost!.partition)).toBe('-1');
        expect(await committed(first.groupId, topic, kept!.partition)).toBe('3');
      });

      // @trap the group refuses a commit, or throws the member out
      it('refuses the commit of a member that the group has thrown out, which then comes back', async () => {
        const topic = await newTopic();
        await producer.send(numbered(topic, 0, 3));
        // Seldom enough for it not to notice before it commits.
        const member = await join([topic], { heartbeatIntervalMs: 2_000 });
        await member.received(3);
        const { groups: described } = await admin.describeGroups([member.groupId]);
        const members = described[0]!.members.map(({ memberId }) => ({ memberId }));
        await groups.removeMembersFromConsumerGroup({ groupId: member.groupId, members });
        await expect(member.consumer.commit([{ topic, partition: 0, offset: 3n }])).rejects.toBeInstanceOf(
          CommitRefusedError,
        );
        await eventually(() => member.events.length === 3, PATIENCE_MS);
        expect(member.events).toEqual(['assigned 1', 'revoking', 'assigned 1']);
        await member.received(6);
        expect(member.values()).toEqual([...numbers(0, 3), ...numbers(0, 3)]);
        await member.consumer.commit([{ topic, partition: 0, offset: 3n }]);
        expect(await committed(member.groupId, topic)).toBe('3');
      });

      it('holds back only the partition that is paused, and goes on with it without a gap or a repetition', async () => {
        const topic = await newTopic(2);
        await producer.send([...numbered(topic, 0, 5, 0), ...numbered(topic, 0, 5, 1)]);
        const member = await join([topic]);
        await member.received(10);
        member.consumer.pause([{ topic, partition: 0 }]);
        await fetchesAreNew(topic, member);
        await producer.send([...numbered(topic, 5, 15, 0), ...numbered(topic, 5, 15, 1)]);
        await member.received(23);
        await fetchesAreNew(topic, member);
        expect(member.values(topic, 0)).toEqual(numbers(0, 5));
        expect(member.values(topic, 1).filter((value) => value !== 'fetched')).toEqual(numbers(0, 15));
        member.consumer.resume([{ topic, partition: 0 }]);
        await member.received(36);
        expect(member.values(topic, 0)).toEqual(numbers(0, 15));
        expect(member.gaps()).toEqual([]);
      });

      it('stays in the group for longer than a session with everything paused', async () => {
        const topic = await newTopic();
        const member = await join([topic]);
        await member.assignedTo(1);
        member.consumer.pause([{ topic, partition: 0 }]);
        // Another member of another group is thrown out meanwhile: a session has passed when Kafka says so.
        const other = await newTopic();
        await producer.send([{ topic: other, value: 'x' }]);
        await sessionPasses(peer, admin, other);
        await producer.send(numbered(topic, 0, 2));
        member.consumer.resume([{ topic, partition: 0 }]);
        await member.received(2);
        expect(member.events).toEqual(['assigned 1']);
        await member.consumer.commit([{ topic, partition: 0, offset: 2n }]);
      });

      it('leaves the group when it closes, however often, and commits nothing by itself', async () => {
        const topic = await newTopic();
        await producer.send(numbered(topic, 0, 2));
        const member = await join([topic]);
        await member.received(2);
        await Promise.all([member.close(), member.close()]);
        await member.close();
        const { groups } = await admin.describeGroups([member.groupId]);
        expect(groups[0]!.members).toEqual([]);
        expect(await committed(member.groupId, topic)).toBe('-1');
        expect(member.failure).toBeUndefined();
        await expect(member.consumer.commit([{ topic, partition: 0, offset: 1n }])).rejects.toThrow();
        const spare = await driver.producer();
        await Promise.all([spare.close(), spare.close()]);
        await expect(spare.send([{ topic, value: 'x' }])).rejects.toThrow();
      });
    });

    describe('a broker that goes', () => {
      let directory: string;
      let broker: EmbeddedKafka | undefined;
      beforeAll(() => void (directory = mkdtempSync(path.join(tmpdir(), 'contract-'))));
      afterAll(async () => {
        await broker?.stop();
        rmSync(directory, { recursive: true, force: true });
      });

      // @trap the broker is stopped and started again
      it(
        'rejects when no broker can be reached, goes on when it is back, loses nothing, and closes while it is away',
        async () => {
          broker = await startEmbeddedKafka({ directory });
          const { port } = broker;
          const own = create({ brokers: broker.brokers, clientId: 'contract' });
          const topic = `contract.${randomUUID()}`;
          await own.createMissingTopics([topic], { partitions: 2, replication: undefined });
          const member = await join([topic], { driver: own });
          const sender = await own.producer();
          const acknowledged: string[] = [];
          const send = async (value: string): Promise<boolean> => {
            const sent = sender.send([{ topic, key: value, value }]);
            const isSent = await sent.then(() => true, () => false); // prettier-ignore
            if (isSent) acknowledged.push(value);
            return isSent;
          };
          for (const value of numbers(0, 20)) expect(await send(value)).toBe(true);
          await member.received(20);

          await broker.stop();
          await eventually(() => member.interruptions.length > 0, PATIENCE_MS);
          await expect(sender.send([{ topic, value: 'away' }])).rejects.toThrow();
          await expect(
            member.consumer.commit([{ ...member.partitions()[0]!, offset: 1n }]),
          ).rejects.toThrow();
          await expect(own.producer()).rejects.toThrow();
          await expect(own.createMissingTopics([topic], { partitions: 1, replication: 1 })).rejects.toThrow();
          await expect(Member.join(own, { topics: [topic] })).rejects.toThrow();

          broker = await startEmbeddedKafka({ directory, port });
          for (const value of numbers(20, 40)) await eventually(() => send(value), PATIENCE_MS);
          await eventually(() => acknowledged.every((value) => member.values().includes(value)), PATIENCE_MS);
          for (const partition of [0, 1]) {
            const own = member.values(topic, partition).map(Number).filter((value) => !Number.isNaN(value)); // prettier-ignore
            expect([...new Set(own)]).toEqual([...new Set(own)].sort((a, b) => a - b));
          }
          await eventually(async () => {
            const offsets = member
              .partitions()
              .map((at) => ({ ...at, offset: member.nextOffset(topic, at.partition)! }));
            return member.consumer.commit(offsets).then(() => true, () => false); // prettier-ignore
          }, PATIENCE_MS);
          expect(member.failure).toBeUndefined();
          // Each interruption is told once, and so is its end.
          await eventually(() => member.recoveries === member.interruptions.length, PATIENCE_MS);

          await broker.stop();
          broker = undefined;
          await Promise.all([member.close(), sender.close()]);
        },
        MINUTES,
      );
    });
  });
}

/** The hashes that Apache Kafka's own test of it has (UtilsTest.testMurmur2). */
const JAVA_MURMUR2 = {
  '21': -973932308,
  abc: 479470107,
  foobar: -790332482,
  'a-little-bit-long-string': -985981536,
  'a-little-bit-longer-string': -1486304829,
  lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8: -58897971,
};

/** Waits until Kafka has ended the session of a member that sends no heartbeat; `topic` has a record. */
async function sessionPasses(peer: Kafka, admin: Admin, topic: string): Promise<void> {
  const groupId = `contract-${randomUUID()}`;
  const witness = peer.consumer({ groupId, sessionTimeout: SESSION_MS });
  const hasMembers = async (): Promise<boolean> =>
    (await admin.describeGroups([groupId])).groups[0]!.members.length > 0;
  await witness.connect();
  await witness.subscribe({ topic, fromBeginning: true });
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  let isHolding = false;
  // kafkajs sends heartbeats between records only: this one is not done with its first.
  await witness.run({
    eachMessage: async () => {
      isHolding = true;
      await held;
    },
  });
  try {
    await eventually(() => isHolding, PATIENCE_MS);
    await eventually(async () => !(await hasMembers()), PATIENCE_MS);
  } finally {
    release();
    await witness.disconnect();
  }
}
