import type { Logger } from '@nestjs/common';
import { type Broker, Producer } from '@platformatic/kafka';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type KafkaClientSettings,
  type KafkaProducer,
  type OutgoingRecord,
  type RecordHeaders,
  RecordRefusedError,
} from '../kafka-driver.js';
import { partitionOfKey } from '../key-partition.js';
import { pause } from '../pause.js';
import {
  answerOf,
  atMost,
  clientOptions,
  Cluster,
  kafkaName,
  REQUEST_TIMEOUT_MS,
} from './platformatic.cluster.js';

const ACKS_ALL = -1;
const ATTEMPTS = 6;
const RETRY_MS = 100;
const CLOSE_MS = 3_000;
const VIEW_MAX_AGE_MS = 60_000;
/** A batch has one partition's records, and is as large as a broker takes by default (1 MiB) only if one record is. */
const BATCH_BYTES = 512 * 1024;
const TOO_LARGE = ['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE'];
const NEVER_TAKEN = [
  'INVALID_RECORD',
  'INVALID_TIMESTAMP',
  'INVALID_TOPIC_EXCEPTION',
  'UNSUPPORTED_FOR_MESSAGE_FORMAT',
];

interface Topic {
  leaders: (Broker | undefined)[];
  seenAt: number;
}

/** A record as the library encodes it. */
interface Encoded {
  topic: string;
  partition: number;
  key: Buffer | undefined;
  value: Buffer;
  headers: Map<Buffer, Buffer>;
  bytes: number;
}

/** What is still to be sent to one partition, in order. */
interface Queue {
  topic: string;
  partition: number;
  records: Encoded[];
  /** Records in a batch; fewer after the broker found one too large. */
  atMost: number;
}

/**
 * A producer that waits for all in-sync replicas, over the library's connections and requests. The library's own `send`
 * repeats what was acknowledged, takes the partition modulo their number, and ends the process when one has no leader.
 */
export class PlatformaticProducer implements KafkaProducer {
  readonly raw: Producer;
  private readonly cluster: Cluster;
  private readonly topics = new Map<string, Topic>();
  private readonly sending = new Set<Promise<void>>();
  private readonly closing = new AbortController();
  private turn = Math.floor(Math.random() * 1024);
  private closed: Promise<void> | undefined;

  constructor(
    settings: KafkaClientSettings,
    private readonly logger: Logger,
  ) {
    this.raw = new Producer({ ...clientOptions(settings), acks: ACKS_ALL });
    this.cluster = new Cluster(this.raw, settings);
  }

  /** @throws Error the brokers can't be reached */
  async start(): Promise<void> {
    try {
      await this.cluster.view([]);
    } catch (error) {
      await this.cluster.close();
      throw error;
    }
  }

  async send(records: readonly OutgoingRecord[]): Promise<void> {
    if (this.closed) throw new Error('The producer is closed.');
    if (records.length === 0) return;
    const sending = this.sendAll(records);
    const settled = sending.catch(() => undefined).finally(() => this.sending.delete(settled));
    this.sending.add(settled);
    return sending;
  }

  close(): Promise<void> {
    return (this.closed ??= this.finishAndClose());
  }

  private async finishAndClose(): Promise<void> {
    if (this.sending.size > 0) await atMost(CLOSE_MS, Promise.all(this.sending));
    this.closing.abort();
    await this.cluster.close();
    if (this.sending.size > 0)
      this.logger.warn({ msg: 'records were still being sent', sends: this.sending.size });
    await Promise.all(this.sending);
  }

  private async sendAll(records: readonly OutgoingRecord[]): Promise<void> {
    const names = [...new Set(records.map(({ topic }) => topic))];
    let queues: Queue[] | undefined;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.see(names);
        queues ??= this.queue(records);
        while (queues.length > 0) queues = await this.sendRound(queues);
        return;
      } catch (error) {
        if (error instanceof RecordRefusedError || attempt === ATTEMPTS || this.closing.signal.aborted)
          throw error;
        if (error instanceof SentInPart) queues = error.queues;
        for (const name of names) this.topics.delete(name);
        await pause(RETRY_MS * 2 ** (attempt - 1), this.closing.signal);
      }
    }
  }

  /** Finds out who leads the partitions of topics. A topic that was just made is not known to every broker at once. */
  private async see(names: readonly string[]): Promise<void> {
    const isKnown = (name: string): boolean => {
      const topic = this.topics.get(name);
      return topic !== undefined && Date.now() - topic.seenAt < VIEW_MAX_AGE_MS;
    };
    for (let attempt = 1; ; attempt++) {
      const missing = names.filter((name) => !isKnown(name));
      if (missing.length === 0) return;
      const { topics, brokers, refused } = await this.cluster.view(missing);
      const seenAt = Date.now();
      for (const [name, { leaders }] of topics)
        this.topics.set(name, {
          leaders: leaders.map((id) => (id === undefined ? id : brokers.get(id))),
          seenAt,
        });
      for (const [name, error] of refused) {
        if (error === 'INVALID_TOPIC_EXCEPTION' || (error === 'UNKNOWN_TOPIC_OR_PARTITION' && attempt > 3))
          throw new RecordRefusedError(`There is no topic ${name}: ${error}.`, false);
        if (error !== 'UNKNOWN_TOPIC_OR_PARTITION')
          throw new Error(`The topic ${name} can't be used: ${error}.`);
      }
      if (refused.size > 0) await sleep(RETRY_MS * attempt, undefined, { signal: this.closing.signal });
    }
  }

  private queue(records: readonly OutgoingRecord[]): Queue[] {
    const queues = new Map<string, Queue>();
    for (const record of records) {
      const encoded = this.encode(record);
      const { topic, partition } = encoded;
      const name = `${topic}:${partition}`;
      const queue = queues.get(name) ?? { topic, partition, records: [], atMost: Infinity };
      queue.records.push(encoded);
      queues.set(name, queue);
    }
    return [...queues.values()];
  }

  private encode({ topic, partition: wanted, key: rawKey, value, headers }: OutgoingRecord): Encoded {
    const count = this.topics.get(topic)!.leaders.length;
    const key = rawKey === null || rawKey === undefined ? undefined : bytesOf(rawKey);
    const partition = wanted ?? (key ? partitionOfKey(key, count) : this.turn++ % count);
    if (!Number.isInteger(partition) || partition < 0 || partition >= count)
      throw new RecordRefusedError(`The topic ${topic} has no partition ${partition}.`, false);
    const pairs = headerPairs(headers);
    const bytes = [key, value === null ? undefined : bytesOf(value), ...pairs.flat()].reduce(
      (sum, part) => sum + (part?.length ?? 0),
      32,
    );
    // A tombstone is what the library makes of null; its types do not say so.
    const body = (value === null ? null : bytesOf(value)) as Buffer;
    // Each name is a Buffer of its own: a Map has one that repeats more than once then.
    return { topic, partition, key, value: body, headers: new Map(pairs), bytes };
  }

  /** Sends one batch for each partition, and returns what is left. @throws SentInPart */
  private async sendRound(queues: Queue[]): Promise<Queue[]> {
    const byLeader = new Map<Broker, { queue: Queue; batch: Encoded[] }[]>();
    const errors: unknown[] = [];
    for (const queue of queues) {
      const leader = this.topics.get(queue.topic)?.leaders[queue.partition];
      if (leader) byLeader.set(leader, [...(byLeader.get(leader) ?? []), { queue, batch: nextBatch(queue) }]);
      else
        errors.push(new Error(`${queue.topic}, partition ${queue.partition}, has no leader at the moment.`));
    }
    await Promise.all(
      [...byLeader].map(async ([leader, batches]) => {
        try {
          errors.push(...(await this.produce(leader, batches)));
        } catch (error) {
          errors.push(error);
        }
      }),
    );
    const left = queues.filter((queue) => queue.records.length > 0);
    const refused = errors.find((error) => error instanceof RecordRefusedError);
    if (refused) throw refused;
    if (errors.length > 0) throw new SentInPart(left, errors);
    return left;
  }

  private async produce(leader: Broker, batches: { queue: Queue; batch: Encoded[] }[]): Promise<Error[]> {
    const records = batches.flatMap(({ batch }) => batch);
    const answer = await this.cluster
      .call('Produce', leader, [ACKS_ALL, REQUEST_TIMEOUT_MS, records], { timeoutMs: 2 * REQUEST_TIMEOUT_MS })
      .catch(answerOf<'Produce'>);
    const errors: Error[] = [];
    for (const { name, partitionResponses } of answer.responses) {
      for (const { index, errorCode, errorMessage } of partitionResponses) {
        const sent = batches.find(({ queue }) => queue.topic === name && queue.partition === index);
        if (!sent) continue;
        const { queue, batch } = sent;
        const error = kafkaName(errorCode);
        const text = `${name}, partition ${index}: ${error}${errorMessage ? `, ${errorMessage}` : ''}`;
        if (errorCode === 0) queue.records.splice(0, batch.length);
        else if (TOO_LARGE.includes(error) && batch.length > 1) queue.atMost = Math.ceil(batch.length / 2);
        else if (TOO_LARGE.includes(error)) errors.push(new RecordRefusedError(text, true));
        else if (NEVER_TAKEN.includes(error)) errors.push(new RecordRefusedError(text, false));
        else errors.push(new Error(text));
      }
    }
    return errors;
  }
}

/** Some partitions have not acknowledged their batch; `queues` is what is left to be sent. */
class SentInPart extends AggregateError {
  constructor(
    readonly queues: Queue[],
    errors: unknown[],
  ) {
    const reasons = errors.map((error) => (error instanceof Error ? error.message : String(error)));
    super(errors, `Records could not be sent: ${[...new Set(reasons)].join('; ')}`);
  }
}

function nextBatch({ records, atMost }: Queue): Encoded[] {
  const batch: Encoded[] = [];
  let bytes = 0;
  for (const record of records) {
    bytes += record.bytes;
    if (batch.length > 0 && (bytes > BATCH_BYTES || batch.length >= atMost)) break;
    batch.push(record);
  }
  return batch;
}

const bytesOf = (data: Buffer | string): Buffer => (typeof data === 'string' ? Buffer.from(data) : data);

function headerPairs(headers: RecordHeaders | undefined): [Buffer, Buffer][] {
  return Object.entries(headers ?? {}).flatMap(([name, values]) =>
    [values ?? []].flat().map((value): [Buffer, Buffer] => [Buffer.from(name), bytesOf(value)]),
  );
}
