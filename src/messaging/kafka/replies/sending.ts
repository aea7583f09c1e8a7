// messaging/kafka/replies/: Where a reply goes, how it is sent, and what waits to be sent.
// Promises: what an address alone keeps from being sent holds up nobody else; memory is bounded.
// May know: the producer of the port, a `Delivery` and records/; neither a client nor how messages are handled.

import { isUtf8 } from 'node:buffer';
import { Logger } from '@nestjs/common';
import { KafkaHeaders, type OutgoingResponse } from '@nestjs/microservices';
import type { Delivery, ReplyAddress } from '../../delivery.js';
import { retryDelay } from '../../failure-policy.js';
import type { MessageAnswer } from '../../message-answer.js';
import { type KafkaProducer, RecordRefusedError } from '../../kafka-driver.js';
import type { OutgoingRecord } from '../../records/record.js';
import { inSendSpans } from '../../records/send-spans.js';
import { recordBytes, refuseHuge } from '../../records/size.js';
import { type TraceHeaders, traceHeadersOf } from '../../../tracing/trace-context.js';
import { answerInstead, UnspeakableAnswer } from './instead.js';
import { ReplyRoom, type Reservation } from './room.js';
import { pause } from '../../waiting.js';
import { plainText } from '../../../errors/plain-text.js';
import { standingFor, ToldRarely } from '../../../errors/told-rarely.js';

/** What Nest's serializers make of a response. */
export interface Serialized {
  value: Buffer | string | null;
  key?: Buffer | string | null;
  headers?: OutgoingRecord['headers'];
}

export interface ReplySettings {
  /** How long one is tried again that its own address keeps from being sent. */
  timeoutMs: number;
  /** What answers may take that are not with the brokers yet, before more messages are handled. */
  bufferBytes: number;
  /** Whether the brokers can be read from. */
  isReachable: () => boolean;
}

/** Of a reply that is tried again. */
interface Failure {
  since: number;
  /** Since when the brokers are there and do not take it. */
  aloneSince: number | undefined;
}

/** Attempts of a reply before it has to make room for others. */
const ATTEMPTS_IN_A_CROWD = 4;

/** Sends replies as `ClientKafka` expects them, and tells when the broker has each. */
export class MessageReplies {
  private readonly logger = new Logger(MessageReplies.name);
  /** Replies under way. Their number is bounded, as their messages are held until they are acknowledged. */
  private readonly pending = new Set<Promise<void>>();
  private readonly told = new ToldRarely();
  private readonly room: ReplyRoom;
  /** When a reply was last acknowledged, to any address; on the clock of `performance`. */
  private acknowledgedAt = -Infinity;

  constructor(
    private readonly serialize: (response: unknown) => Serialized | Promise<Serialized>,
    private readonly producer: () => KafkaProducer | undefined,
    private readonly stopping: AbortSignal,
    private readonly settings: ReplySettings,
  ) {
    this.room = new ReplyRoom(settings.bufferBytes);
  }

  /** Resolves once answers that are not with the brokers take no more than they may; undefined: they don't. */
  untilRoom(): Promise<void> | undefined {
    return this.room.isFull ? this.room.untilFree() : undefined;
  }

  /** @param acknowledged called when the reply is with the broker, or can never be */
  send(delivery: Delivery, answer: MessageAnswer, acknowledged: () => void): void {
    const reservation = this.room.reserve();
    const sending = this.sendUntilAcknowledged(delivery, answer, reservation).then((isDone) => {
      reservation.close();
      this.pending.delete(sending);
      if (isDone) acknowledged();
    });
    this.pending.add(sending);
  }

  /** Replies that are not acknowledged yet. */
  get unacknowledged(): number {
    return this.pending.size;
  }

  async untilSent(): Promise<void> {
    await Promise.all(this.pending);
  }

  /** @returns false when it was given up because the application stops; the message then keeps its offset */
  private async sendUntilAcknowledged(
    delivery: Delivery,
    answer: MessageAnswer,
    reservation: Reservation,
  ): Promise<boolean> {
    let failure: Failure | undefined;
    let address = delivery.replyTo!;
    const trace = delivery.trace ?? traceHeadersOf(delivery.record.headers);
    let current = answer;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.sendOnce(address, current, trace, reservation);
        this.acknowledgedAt = performance.now();
        return true;
      } catch (err) {
        const report = {
          msg: 'reply could not be sent',
          correlationId: shownId(address),
          topic: address.topic,
          err,
        };
        if (isWithoutPartition(err, address)) {
          this.tellRarely('warn', {
            ...report,
            msg: 'the partition for a reply is not there; it goes to another',
          });
          address = { ...address, partition: undefined };
          continue;
        }
        const instead = current === answer ? answerInstead(err) : undefined;
        // The message is handled whatever becomes of its reply, so a reply that can't be sent must not keep its offset back.
        if (err instanceof RecordRefusedError || err instanceof UnspeakableAnswer) {
          if (isOfItsTopic(err)) this.tellRarely('error', report);
          else this.logger.error(report);
          if (!instead) return true;
          current = { error: instead };
          continue;
        }
        this.tellRarely('warn', report);
        if (this.stopping.aborted) return false;
        reservation.fails();
        failure ??= { since: performance.now(), aloneSince: undefined };
        if (this.isGivenUp(failure, attempt)) {
          this.tellRarely('error', {
            ...report,
            msg: 'reply was given up, while its address alone is out of reach',
          });
          return true;
        }
        await pause(retryDelay(attempt), this.stopping);
      }
    }
  }

  /**
   * Time counts only while the brokers are there, for others or to be read from: where they are away all wait for them.
   *
   * @param failure of this reply, so far
   */
  private isGivenUp(failure: Failure, attempt: number): boolean {
    const { timeoutMs, isReachable } = this.settings;
    const now = performance.now();
    const areThere = isReachable() || now - this.acknowledgedAt < timeoutMs / 2;
    failure.aloneSince = areThere ? (failure.aloneSince ?? now) : undefined;
    if (failure.aloneSince !== undefined && now - failure.aloneSince > timeoutMs) return true;
    return attempt >= ATTEMPTS_IN_A_CROWD && this.acknowledgedAt > failure.since && this.room.isCrowded;
  }

  /** Once a minute of each topic: all replies to it may meet the same. */
  private tellRarely(level: 'warn' | 'error', report: { msg: string; topic: string }): void {
    this.told.of(`${report.msg} ${report.topic}`, (more) =>
      this.logger[level]({ ...report, ...standingFor(more) }),
    );
  }

  private async sendOnce(
    address: ReplyAddress,
    answer: MessageAnswer,
    trace: TraceHeaders | undefined,
    reservation: Reservation,
  ): Promise<void> {
    const records = await this.recordsOf(address, answer, trace).catch((cause: unknown) => {
      throw new UnspeakableAnswer('The serializer has failed.', { cause });
    });
    refuseHuge(records);
    reservation.holds(records.reduce((sum, record) => sum + recordBytes(record), 0));
    const producer = this.producer();
    if (!producer) throw new Error('Not connected.');
    await inSendSpans(records, (these) => producer.send(these));
  }

  /** As Nest's server: one record for each value, the last of them says that it is. */
  private async recordsOf(
    { topic, partition, correlationId }: ReplyAddress,
    answer: MessageAnswer,
    trace: TraceHeaders | undefined,
  ): Promise<OutgoingRecord[]> {
    const responses: Partial<OutgoingResponse>[] =
      'error' in answer ? [{ err: answer.error }] : answer.values.map((response) => ({ response }));
    if (responses.length === 0) responses.push({});
    responses.at(-1)!.isDisposed = true;
    return Promise.all(
      responses.map(async ({ response, err, isDisposed }) => {
        const { value, key, headers = {} } = await this.serialize(response);
        // Such a record would fail in the producer at each attempt.
        if (![value, key, ...Object.values(headers).flat()].every(isSendable))
          throw new TypeError(
            'A serializer gives text, bytes or nothing as the key, the value and the headers.',
          );
        return {
          topic,
          ...(partition !== undefined && { partition }),
          ...(key != null && { key }),
          value: value ?? null,
          headers: {
            ...trace,
            ...headers,
            [KafkaHeaders.CORRELATION_ID]: correlationId,
            ...(err !== undefined && {
              [KafkaHeaders.NEST_ERR]: typeof err === 'object' ? JSON.stringify(err) : String(err),
            }),
            ...(isDisposed && { [KafkaHeaders.NEST_IS_DISPOSED]: Buffer.alloc(1) }),
          },
        };
      }),
    );
  }
}

const isSendable = (part: unknown) =>
  part === undefined || part === null || typeof part === 'string' || Buffer.isBuffer(part);

/** The topic has no such partition, any more or yet: the driver has looked anew. */
const isWithoutPartition = (error: unknown, { partition }: ReplyAddress) =>
  partition !== undefined && error instanceof RecordRefusedError && error.reason === 'no-partition';

/** No record for that topic is taken, whatever is in it. */
const isOfItsTopic = (error: unknown) =>
  error instanceof RecordRefusedError && (error.reason === 'no-topic' || error.reason === 'not-allowed');

const shownId = ({ correlationId: id }: ReplyAddress) =>
  plainText(typeof id === 'string' || isUtf8(id) ? String(id) : id.toString('hex'));
