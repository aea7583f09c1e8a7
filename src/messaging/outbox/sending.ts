import { Logger } from '@nestjs/common';
import { beforeAbort } from '../../database/before-abort.js';
import { standingFor, ToldRarely } from '../../errors/told-rarely.js';
import { type KafkaProducer, PartlySentError, RecordRefusedError } from '../kafka-driver.js';
import type { OutgoingRecord } from '../records/record.js';
import { claimCheckOf, type OutboxRow, outboxRecord } from './record.js';
import { inSendSpans } from '../records/send-spans.js';
import { refuseHuge } from '../records/size.js';
import { publishRefused, publishRelayed } from '../telemetry/message-events.js';
import type { RefusedTopics } from './refused-topics.js';
import type { Refusal } from './statements.js';

/** A send that takes longer is not waited for; where it arrives all the same, its events come twice. */
const SEND_MS = 30_000;

/** What became of rows; those that are in neither list are to be sent again. */
export interface SendingResult {
  /** With the brokers. */
  sent: OutboxRow[];
  /** What the brokers will not take as it is. */
  refusals: Refusal[];
  /** Why not all of them are in either list: the brokers can't be reached. */
  failure?: unknown;
}

export interface SendingLimits {
  /** Ends every wait. */
  signal: AbortSignal;
  /** When nothing more is begun, as `performance.now()`. */
  until: number;
}

/** Sends rows of the outbox: together where it can be done, and one by one where the brokers refuse one of them. */
export class OutboxSending {
  private readonly logger = new Logger(OutboxSending.name);
  private readonly told = new ToldRarely();

  constructor(
    private readonly producer: () => KafkaProducer | undefined,
    private readonly refusedTopics?: RefusedTopics,
  ) {}

  /** Sends `rows` in their order; one that is refused keeps back those behind it of its aggregate, and no other. */
  async send(rows: readonly OutboxRow[], limits: SendingLimits): Promise<SendingResult> {
    const result: SendingResult = { sent: [], refusals: [] };
    // A row that was refused before may be refused again, and the batch with it: it is sent by itself.
    const fresh = rows.filter(({ attempts }) => attempts === 0);
    const again = rows.filter(({ attempts }) => attempts > 0);
    try {
      await this.sendTogether(fresh, result, limits);
      await this.sendOneByOne(again, result, limits);
    } catch (error) {
      result.failure = error;
    }
    return result;
  }

  private async sendTogether(
    rows: readonly OutboxRow[],
    result: SendingResult,
    limits: SendingLimits,
  ): Promise<void> {
    if (rows.length < 2) return this.sendOneByOne(rows, result, limits);
    const records = rows.map(outboxRecord);
    try {
      await this.sendRecords(records, limits);
      this.sent(rows, result);
    } catch (error) {
      const isInPart = error instanceof RecordRefusedError || error instanceof PartlySentError;
      const acknowledged = new Set(isInPart ? error.acknowledged : []);
      const isSent = (_: OutboxRow, index: number) => acknowledged.has(records[index]!);
      this.sent(rows.filter(isSent), result);
      if (!(error instanceof RecordRefusedError)) throw error;
      await this.sendOneByOne(
        rows.filter((row, index) => !isSent(row, index)),
        result,
        limits,
      );
    }
  }

  private sent(rows: readonly OutboxRow[], result: SendingResult): void {
    result.sent.push(...rows);
    publishRelayed(rows);
    for (const { topic } of rows) this.refusedTopics?.taken(topic);
  }

  private async sendOneByOne(
    rows: readonly OutboxRow[],
    result: SendingResult,
    limits: SendingLimits,
  ): Promise<void> {
    const kept = new Set<string>();
    for (const row of rows) {
      if (kept.has(row.aggregateid)) continue;
      if (limits.signal.aborted || performance.now() > limits.until) return;
      const refusal = await this.sendOne(row, limits);
      if (!refusal) {
        this.sent([row], result);
        continue;
      }
      kept.add(row.aggregateid);
      result.refusals.push({ row, reason: refusal.message });
      const { id, topic } = row;
      this.refusedTopics?.refused(topic, refusal);
      publishRefused(topic, refusal.reason);
      const report = { msg: 'an event is refused by the brokers', id, topic, err: refusal };
      const tell = (more: number) => this.logger.error({ ...report, ...standingFor(more) });
      if (!this.told.of(`${topic} ${refusal.message}`, tell)) this.logger.debug(report);
    }
  }

  private async sendOne(row: OutboxRow, limits: SendingLimits): Promise<RecordRefusedError | undefined> {
    try {
      await this.sendOrCheckIn(outboxRecord(row), row, limits);
      return undefined;
    } catch (error) {
      if (error instanceof RecordRefusedError) return error;
      throw error;
    }
  }

  /** A record that is too large for its topic would keep back its aggregate for ever: a reference is sent in its place. */
  private async sendOrCheckIn(record: OutgoingRecord, row: OutboxRow, limits: SendingLimits): Promise<void> {
    try {
      await this.sendRecords([record], limits);
    } catch (error) {
      const isTooLarge = error instanceof RecordRefusedError && error.isTooLarge;
      const reference = isTooLarge ? claimCheckOf(record, row) : undefined;
      if (!reference) throw error;
      await this.sendRecords([reference], limits);
      const { id, type, topic } = row;
      this.logger.warn({
        msg: 'too large for its topic: a reference was sent in its place',
        id,
        type,
        topic,
      });
    }
  }

  private async sendRecords(records: OutgoingRecord[], { signal }: SendingLimits): Promise<void> {
    refuseHuge(records);
    const producer = this.producer();
    if (!producer) throw new Error('Kafka is not connected.');
    const late = new AbortController();
    const timer = setTimeout(
      () => late.abort(new Error(`Kafka has not answered in ${SEND_MS} ms.`)),
      SEND_MS,
    );
    try {
      const sending = inSendSpans(records, (these) => producer.send(these));
      await beforeAbort(sending, AbortSignal.any([signal, late.signal]));
    } finally {
      clearTimeout(timer);
    }
  }
}
