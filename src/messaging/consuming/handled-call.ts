import type { ExecutionContext } from '@nestjs/common';
import { KafkaContext } from '@nestjs/microservices';
import { PATTERN_EXTRAS_METADATA } from '@nestjs/microservices/constants.js';
import { replyAddressOf } from '../delivery.js';
import type { IncomingRecord } from '../records/record.js';
import {
  digestOfMessage,
  type MessageIdentity,
  messageIdOf,
  ownIdOf,
  textOrBytes,
} from '../message-identity.js';

/** A message as a handler's unit of work has to know it. */
export interface HandledCall {
  message: MessageIdentity;
  /** True when the sender waits for an answer, which then is kept. */
  isAnswered: boolean;
  /** To be called where it turns out that the message was handled before. */
  onRepeated?: () => void;
  /** To be called where another message with its id was handled before: filters of the host need not pass that on. */
  onConflict?: (error: Error) => void;
}

/** A message of Nest's own transport, with the record as far as it can be had. */
export interface StockCall extends HandledCall {
  record: IncomingRecord;
}

/** What a message pattern may say of its messages, beside `BATCHABLE`. */
export interface HandlerExtras {
  /** Headers that the handler reads: the same id with another of these is another message. */
  digestHeaders?: readonly string[];
}

/** What our transport knows of the call that a context stands for. */
interface KnownCall extends HandledCall {
  /** Claimed by the transport itself, for a batch. */
  isClaimed: boolean;
  /** Several handlers take this message, each once. */
  isShared: boolean;
}

const known = new WeakMap<object, KnownCall>();
const groupIds = new WeakMap<object, Promise<string>>();

/** Says what is called with this context. */
export function knowCall(context: KafkaContext, call: KnownCall): void {
  known.set(context, call);
}

/** True for one of a batch that our transport has claimed as a whole. */
export const isClaimedCall = (context: object): boolean => known.get(context)?.isClaimed ?? false;

/** undefined: no Kafka message, or one that is claimed already. */
export async function identityOfCall(
  context: KafkaContext,
  execution: ExecutionContext,
): Promise<HandledCall | StockCall | undefined> {
  if (!(context instanceof KafkaContext)) return undefined;
  const call = known.get(context);
  if (call?.isClaimed) return undefined;
  const name = `${execution.getClass().name}.${execution.getHandler().name}`;
  if (call) return call.isShared ? withHandler(call, name) : call;
  const extras = Reflect.getMetadata(PATTERN_EXTRAS_METADATA, execution.getHandler()) as
    HandlerExtras | undefined;
  return withHandler(await callOfStockTransport(context, extras?.digestHeaders ?? []), name);
}

/** Several handlers may take one message, and which of them do is known to our transport only. */
function withHandler<Call extends HandledCall>(call: Call, name: string): Call {
  const { message } = call;
  return { ...call, message: { ...message, consumer: `${message.consumer}/${name}` } };
}

/** Nest's own Kafka server has parsed the message already. */
async function callOfStockTransport(
  context: KafkaContext,
  digestHeaders: readonly string[],
): Promise<StockCall> {
  const { key, value, headers, offset, timestamp } = context.getMessage() as unknown as Record<
    'key' | 'value' | 'headers' | 'offset' | 'timestamp',
    unknown
  >;
  const [topic, partition] = [context.getTopic(), context.getPartition()];
  const parsed = {
    ...{ topic, key: textOf(key), value: textOf(value) },
    headers: Object.fromEntries(
      Object.entries((headers ?? {}) as Record<string, unknown>).map(([name, header]) => [
        name,
        Array.isArray(header) ? header.map((one) => textOf(one) ?? '') : textOf(header),
      ]),
    ),
  };
  const record: IncomingRecord = {
    ...{ topic, partition, offset: BigInt(String(offset)), timestamp: String(timestamp) },
    ...{ key: bytesOf(parsed.key), value: bytesOf(parsed.value), headers: parsed.headers },
  };
  return {
    message: {
      consumer: await groupIdOf(context),
      messageId: messageIdOf(record),
      isNamedByPlace: ownIdOf(record.headers) === undefined,
      digest: digestOfMessage(parsed, digestHeaders),
      place: { topic, partition, offset: String(offset) },
    },
    record,
    isAnswered: replyAddressOf(record) !== undefined,
  };
}

/** kafkajs tells it to those who ask the broker only; once per consumer. */
function groupIdOf(context: KafkaContext): Promise<string> {
  const consumer = context.getConsumer();
  let groupId = groupIds.get(consumer);
  if (!groupId) {
    groupId = consumer.describeGroup().then((group) => group.groupId);
    groupIds.set(consumer, groupId);
    groupId.catch(() => groupIds.delete(consumer));
  }
  return groupId;
}

/** Nest's parser decodes what looks like JSON. */
function textOf(value: unknown): string | Buffer | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string' || Buffer.isBuffer(value)) return textOrBytes(value);
  return JSON.stringify(value);
}

const bytesOf = (value: string | Buffer | undefined): Buffer | null =>
  value === undefined ? null : Buffer.from(value);
