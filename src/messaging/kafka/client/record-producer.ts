import type { Logger } from '@nestjs/common';
import { refusalReason } from '../broker-answers.js';
import { brokerErrorName } from '../protocol/error-names.js';
import { type KafkaProducer, RecordRefusedError } from '../../kafka-driver.js';
import { partitionOfKey } from '../protocol/key-partition.js';
import { type OutgoingRecord, partitionKey } from '../../records/record.js';
import { endsWithin, pause } from '../../waiting.js';
import { encodeBatch } from '../../records/writer.js';
import { addressKey, type BrokerAddress } from '../broker-connections.js';
import { answerError, type Cluster, REQUEST_TIMEOUT_MS } from './cluster.js';
import { inPart, PartitionQueue } from './partition-queue.js';
import { produce } from '../protocol/record-requests.js';

const ATTEMPTS = 6;
const RETRY_MS = 100;
const CLOSE_MS = 3_000;
const VIEW_MAX_AGE_MS = 60_000;
/** Topics whose leaders are remembered; a bound, as senders choose the topics of their replies. */
const MOST_TOPICS = 10_000;
/** A topic that was just made is not known to every broker at once. */
const LOOKS_FOR_TOPIC = 3;

interface Topic {
  leaders: (BrokerAddress | undefined)[];
  seenAt: number;
}

/** A producer that waits for all in-sync replicas; of what was acknowledged in part it sends the rest again. */
export class RecordProducer implements KafkaProducer {
  private readonly topics = new Map<string, Topic>();
  private readonly sending = new Set<Promise<void>>();
  private readonly closing = new AbortController();
  /** Where the next record without a key goes. */
  private roundRobin = Math.floor(Math.random() * 1024);
  private closed: Promise<void> | undefined;

  /** @param raw the library's own producer, for handlers that send by it @param closeRaw called once when this one is closed */
  constructor(
    readonly raw: unknown,
    private readonly cluster: Cluster,
    private readonly logger: Logger,
    private readonly closeRaw: () => Promise<void> = () => Promise.resolve(),
  ) {}

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
    if (this.sending.size > 0) await endsWithin(CLOSE_MS, Promise.all(this.sending));
    this.closing.abort();
    this.cluster.close();
    if (this.sending.size > 0)
      this.logger.warn({ msg: 'records were still being sent', sends: this.sending.size });
    await Promise.all(this.sending);
    await endsWithin(CLOSE_MS, this.closeRaw()).catch(() => undefined);
  }

  private async sendAll(records: readonly OutgoingRecord[]): Promise<void> {
    const names = [...new Set(records.map(({ topic }) => topic))];
    let queues: PartitionQueue[] | undefined;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.see(names);
        queues ??= await this.queue(records);
        while (queues.length > 0) queues = await this.sendRound(queues);
        return;
      } catch (error) {
        if (error instanceof RecordRefusedError || attempt === ATTEMPTS || this.closing.signal.aborted)
          throw inPart(error as Error, records, queues);
        queues = queues?.filter((queue) => queue.records.length > 0);
        for (const name of names) this.topics.delete(name);
        await pause(RETRY_MS * 2 ** (attempt - 1), this.closing.signal);
      }
    }
  }

  /** Finds out who leads the partitions of topics. @throws RecordRefusedError nothing can be sent to one of them */
  private async see(names: readonly string[]): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const now = performance.now();
      const missing = names.filter((name) => now - (this.topics.get(name)?.seenAt ?? -Infinity) > VIEW_MAX_AGE_MS); // prettier-ignore
      if (missing.length === 0) return;
      const { topics, brokers, refused } = await this.cluster.view(missing);
      const seenAt = performance.now();
      if (this.topics.size + topics.size > MOST_TOPICS) this.topics.clear();
      for (const [name, { leaders }] of topics)
        this.topics.set(name, {
          leaders: leaders.map((id) => (id === undefined ? undefined : brokers.get(id))),
          seenAt,
        });
      for (const [name, code] of refused) {
        const answer = brokerErrorName(code);
        const error = answerError(`The topic ${name}`, code)!;
        const reason = refusalReason(answer);
        const mayCome = answer.startsWith('UNKNOWN_TOPIC') && attempt < LOOKS_FOR_TOPIC;
        if (reason && !mayCome) throw new RecordRefusedError(error.message, false, { cause: error, reason });
        if (!reason) throw error;
      }
      if (refused.size > 0) await pause(RETRY_MS * attempt, this.closing.signal);
      this.closing.signal.throwIfAborted();
    }
  }

  private async queue(records: readonly OutgoingRecord[]): Promise<PartitionQueue[]> {
    const queues = new Map<string, PartitionQueue>();
    for (const record of records) {
      const { topic } = record;
      const partition = await this.partitionOf(record);
      const name = partitionKey({ topic, partition });
      const queue = queues.get(name) ?? new PartitionQueue(topic, partition);
      queue.add(record);
      queues.set(name, queue);
    }
    return [...queues.values()];
  }

  private async partitionOf({ topic, partition, key }: OutgoingRecord): Promise<number> {
    if (partition !== undefined && !this.has(topic, partition)) {
      // It may have been added since the topic was looked at.
      this.topics.delete(topic);
      await this.see([topic]);
      if (!this.has(topic, partition))
        throw new RecordRefusedError(`The topic ${topic} has no partition ${partition}.`, false, {
          reason: 'no-partition',
        });
    }
    const { leaders } = this.topics.get(topic)!;
    if (partition !== undefined) return partition;
    if (key !== null && key !== undefined) return partitionOfKey(Buffer.from(key), leaders.length);
    const led = leaders.flatMap((leader, number) => (leader ? [number] : []));
    return led.length > 0 ? led[this.roundRobin++ % led.length]! : this.roundRobin++ % leaders.length;
  }

  private has(topic: string, partition: number): boolean {
    return Number.isInteger(partition) && partition >= 0 && partition < this.topics.get(topic)!.leaders.length; // prettier-ignore
  }

  /** Sends one batch for each partition, and returns what is left; where it fails that is in `queues`. */
  private async sendRound(queues: PartitionQueue[]): Promise<PartitionQueue[]> {
    const byLeader = new Map<string, { leader: BrokerAddress; sends: Send[] }>();
    const errors: unknown[] = [];
    for (const queue of queues) {
      const leader = this.topics.get(queue.topic)?.leaders[queue.partition];
      if (leader) {
        const of = byLeader.get(addressKey(leader)) ?? { leader, sends: [] };
        of.sends.push({ queue, batch: queue.nextBatch() });
        byLeader.set(addressKey(leader), of);
      } else errors.push(new Error(`${queue.topic}, partition ${queue.partition}, has no leader at the moment.`)); // prettier-ignore
    }
    const produced = [...byLeader.values()].map(async ({ leader, sends }) => {
      try {
        errors.push(...(await this.produce(leader, sends)));
      } catch (error) {
        errors.push(error);
      }
    });
    await Promise.all(produced);
    const refused = errors.find((error) => error instanceof RecordRefusedError);
    if (refused) throw refused;
    if (errors.length > 0) throw notSent(errors);
    return queues.filter((queue) => queue.records.length > 0);
  }

  private async produce(leader: BrokerAddress, sends: readonly Send[]): Promise<Error[]> {
    const batches = sends.map(({ queue: { topic, partition }, batch }) => ({
      ...{ topic, partition },
      records: encodeBatch(batch),
    }));
    const answers = await this.cluster.call(leader, produce(batches, REQUEST_TIMEOUT_MS), {
      timeoutMs: 2 * REQUEST_TIMEOUT_MS,
    });
    const errors: Error[] = [];
    for (const { topic, partition, errorCode } of answers) {
      const sent = sends.find(({ queue }) => queue.topic === topic && queue.partition === partition);
      if (!sent) continue;
      const { queue, batch } = sent;
      const error = answerError(`${topic}, partition ${partition}`, errorCode);
      const reason = error && refusalReason(error.answer);
      if (!error) queue.records.splice(0, batch.length);
      else if (reason === 'too-large' && batch.length > 1) queue.atMost = Math.ceil(batch.length / 2);
      // The leader may have just moved: the next look at the topic tells whether it exists.
      else if (reason && !error.answer.startsWith('UNKNOWN_TOPIC'))
        errors.push(new RecordRefusedError(error.message, reason === 'too-large', { cause: error, reason }));
      else errors.push(error);
    }
    return errors;
  }
}

/** One batch on its way. */
interface Send {
  queue: PartitionQueue;
  batch: ReturnType<PartitionQueue['nextBatch']>;
}

function notSent(errors: unknown[]): Error {
  const reasons = errors.map((error) => (error instanceof Error ? error.message : String(error)));
  return new AggregateError(errors, `Records could not be sent: ${[...new Set(reasons)].join('; ')}`);
}
