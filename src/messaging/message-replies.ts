import { Logger } from '@nestjs/common';
import { KafkaHeaders, type OutgoingResponse } from '@nestjs/microservices';
import type { MessageError } from '../errors/error-responses.js';
import type { Delivery } from './delivery.js';
import { retryDelay } from './failure-policy.js';
import type { MessageAnswer } from './message-answer.js';
import { type KafkaProducer, type OutgoingRecord, RecordRefusedError } from './kafka-driver.js';
import { refuseHuge } from './record-size.js';
import { pause } from './pause.js';

/** What Nest's serializers make of a response. */
interface Serialized {
  value: Buffer | string | null;
  key?: Buffer | string | null;
  headers?: OutgoingRecord['headers'];
}

/** Sends replies as `ClientKafka` expects them, and tells when the broker has each. */
export class MessageReplies {
  private readonly logger = new Logger(MessageReplies.name);
  private readonly pending = new Set<Promise<void>>();

  constructor(
    private readonly serialize: (response: unknown) => Serialized | Promise<Serialized>,
    private readonly producer: () => KafkaProducer | undefined,
    private readonly stopping: AbortSignal,
  ) {}

  /** @param acknowledged called when the reply is with the broker, or can never be */
  send(delivery: Delivery, answer: MessageAnswer, acknowledged: () => void): void {
    const sending = this.sendUntilAcknowledged(delivery, answer).then((isDone) => {
      this.pending.delete(sending);
      if (isDone) acknowledged();
    });
    this.pending.add(sending);
  }

  async untilSent(): Promise<void> {
    await Promise.all(this.pending);
  }

  /** @returns false when it was given up because the application stops; the message then keeps its offset */
  private async sendUntilAcknowledged(delivery: Delivery, answer: MessageAnswer): Promise<boolean> {
    const { topic, correlationId } = delivery.replyTo!;
    let current = answer;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.sendOnce(delivery, current);
        return true;
      } catch (err) {
        const report = { msg: 'reply could not be sent', correlationId: String(correlationId), topic, err };
        const instead = current === answer ? answerInstead(err) : undefined;
        // The effect is applied whatever becomes of the reply, so one that nobody can take does not stop the partition.
        if (err instanceof RecordRefusedError || err instanceof UnspeakableAnswer) {
          this.logger.error(report);
          if (!instead) return true;
          current = { error: instead };
          continue;
        }
        this.logger.warn(report);
        if (this.stopping.aborted) return false;
        await pause(retryDelay(attempt), this.stopping);
      }
    }
  }

  private async sendOnce(delivery: Delivery, answer: MessageAnswer): Promise<void> {
    const records = await this.recordsOf(delivery, answer).catch((cause: unknown) => {
      throw new UnspeakableAnswer('The serializer has failed.', { cause });
    });
    refuseHuge(records);
    const producer = this.producer();
    if (!producer) throw new Error('Not connected.');
    await producer.send(records);
  }

  /** As Nest's server: one record for each value, the last of them says that it is. */
  private async recordsOf({ replyTo }: Delivery, answer: MessageAnswer): Promise<OutgoingRecord[]> {
    const responses: Partial<OutgoingResponse>[] =
      'error' in answer ? [{ err: answer.error }] : answer.values.map((response) => ({ response }));
    if (responses.length === 0) responses.push({});
    responses.at(-1)!.isDisposed = true;
    const { topic, partition, correlationId } = replyTo!;
    return Promise.all(
      responses.map(async ({ response, err, isDisposed }) => {
        const { value, key, headers } = await this.serialize(response);
        return {
          topic,
          ...(partition !== undefined && { partition }),
          ...(key != null && { key }),
          value: value ?? null,
          headers: {
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

/** No record could be made of an answer. */
class UnspeakableAnswer extends Error {}

/** What the sender is told in place of an answer that can't reach it; undefined where nothing can. */
function answerInstead(error: unknown): MessageError | undefined {
  const isTooLarge = error instanceof RecordRefusedError && error.isTooLarge;
  if (isTooLarge)
    return {
      code: 'REPLY_TOO_LARGE',
      message:
        'What was asked for is done, and the answer is larger than the reply topic takes. Ask for less at once (a smaller limit), or raise max.message.bytes of that topic.',
      retryable: false,
    };
  if (!(error instanceof UnspeakableAnswer)) return undefined;
  const message = 'What was asked for is done, and of its answer no reply could be made; the log tells more.';
  return { code: 'REPLY_FAILED', message, retryable: false };
}
