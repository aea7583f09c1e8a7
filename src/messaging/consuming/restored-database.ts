import type { Logger } from '@nestjs/common';
import { placeName, placesOfLetters } from '../dead-letters/letter-details.js';
import type { Delivery } from '../delivery.js';
import type { CommittedRecords, KafkaConsumer } from '../kafka-driver.js';
import type { MessageStore } from '../message-store.js';
import type { IncomingRecord, TopicPartition } from '../records/record.js';
import { firstOf } from '../telling.js';
import { endsWithin } from '../waiting.js';

export interface RestoredDatabaseSettings {
  store: MessageStore;
  groupId: string;
  /** How long it is remembered that a message was handled, in ms. */
  retentionMs: number;
  /** undefined while there is none. */
  consumer: () => KafkaConsumer | undefined;
  toDelivery: (record: IncomingRecord) => Delivery;
  logger: Logger;
  stopping: AbortSignal;
}

/** Messages that the group has committed and the database does not know. */
interface UnknownMessages extends TopicPartition {
  /** The next that the group reads. */
  committed: bigint;
  /** Of the few that were looked at. */
  unknown: number;
  /** The timestamp of the oldest of these, in ms. */
  oldest: number;
}

const LOOKS_FOR_MS = 5_000;
/** Of what is remembered: by the end of it rows are removed by the server's clock, and timestamps are those of the senders'. */
const CERTAIN_PART = 0.9;
const TOLD_PARTITIONS = 20;

/**
 * Looks once, when this member has its first partitions, whether the database knows the messages that the group has committed
 * last: one that was restored from a backup may not, and nobody would bring them again. Consuming does not wait for it.
 *
 * Only messages are looked at that leave a row whatever becomes of them: those that are handled in one transaction with their
 * inbox row (`BATCHABLE`), and nobody waits for a reply to. A sender that was told to send again has left none.
 */
export class RestoredDatabase {
  /** What of the group's offsets the database does not know, in a sentence; undefined where nothing was found. */
  offsetsAhead: string | undefined;
  /** Of how many partitions. */
  partitionsAhead = 0;
  private looking: Promise<void> | undefined;

  constructor(private readonly settings: RestoredDatabaseSettings) {}

  assigned(partitions: readonly TopicPartition[]): void {
    if (partitions.length > 0) this.looking ??= this.look(partitions);
  }

  private async look(partitions: readonly TopicPartition[]): Promise<void> {
    const { logger, stopping } = this.settings;
    try {
      if (await endsWithin(LOOKS_FOR_MS, this.compare(partitions))) return;
      throw new Error(`It took more than ${LOOKS_FOR_MS} ms.`);
    } catch (err) {
      // The next assignment is looked at instead.
      this.looking = undefined;
      if (stopping.aborted) return;
      logger.warn({ msg: 'it is not known whether the database has what the group has committed', err });
    }
  }

  private async compare(partitions: readonly TopicPartition[]): Promise<void> {
    const { consumer, groupId, logger } = this.settings;
    const committed = (await consumer()?.lastCommitted?.(partitions)) ?? [];
    const unknown = await this.unknownOf(committed);
    if (unknown.length === 0) {
      const looked = committed.map(({ topic, partition, records }) => ({ topic, partition, messages: records.length })); // prettier-ignore
      logger.debug({ msg: 'the database knows what the group has committed last', looked });
      return;
    }
    this.partitionsAhead = unknown.length;
    this.offsetsAhead = firstOf(unknown.map(sentenceOf));
    const shown = unknown.slice(0, TOLD_PARTITIONS).map(({ topic, partition, ...found }) => ({
      ...{ topic, partition, committed: String(found.committed), unknown: found.unknown },
      sentAt: new Date(found.oldest).toISOString(),
    }));
    logger.error({
      msg:
        'the database does not know messages that the group has committed, and they do not come again: it was restored to an earlier moment ' +
        '(or another application has handled them, or the offsets were set forward). After a restore stop all instances, set the group ' +
        'back to before the moment of the backup (kafka-consumer-groups --reset-offsets --to-datetime), and start them: what the database ' +
        'knows is not applied again',
      ...{ group: groupId, partitions: shown, morePartitions: unknown.length - shown.length },
    });
  }

  private async unknownOf(committed: readonly CommittedRecords[]): Promise<UnknownMessages[]> {
    const { store, groupId, retentionMs, toDelivery } = this.settings;
    const since = Date.now() - retentionMs * CERTAIN_PART;
    const leavesRow = ({ isBatchable, replyTo }: Delivery) => isBatchable && !replyTo;
    const candidates = committed
      .flatMap(({ records }) => records)
      .filter(({ timestamp }) => Number(timestamp) > since)
      .map(toDelivery)
      .filter(leavesRow);
    if (candidates.length === 0) return [];
    const handled = await store.inbox.find(candidates.map(({ message }) => message));
    const missing = candidates.filter(({ message }) => !handled.has(message.messageId));
    const records = missing.map(({ record }) => record);
    const letters = await placesOfLetters(store.transactions, groupId, records);
    const unknown = new Set(records.filter((record) => !letters.has(placeName(record))).map(placeName));
    return committed.flatMap(({ topic, partition, committed: offset, records: all }) => {
      const own = all.filter((record) => unknown.has(placeName(record)));
      if (own.length === 0) return [];
      const oldest = Math.min(...own.map(({ timestamp }) => Number(timestamp)));
      return [{ topic, partition, committed: offset, unknown: own.length, oldest }];
    });
  }
}

const sentenceOf = ({ topic, partition, committed, unknown }: UnknownMessages): string =>
  `${topic}, partition ${partition}: of the messages before offset ${committed}, which the group has committed, the database does not know ${unknown} or more`;
