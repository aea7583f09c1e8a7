import type { ExecutionContext } from '@nestjs/common';
import { KafkaContext } from '@nestjs/microservices';
import { PATTERN_EXTRAS_METADATA } from '@nestjs/microservices/constants.js';
import { replyAddressOf } from './delivery.js';
import type { IncomingRecord } from './kafka-driver.js';
import { digestOf, type MessageIdentity, messageIdOf } from './message-identity.js';

/** A message as a handler's unit of work has to know it. */
export interface HandledCall {
  message: MessageIdentity;
  /** True when the sender waits for an answer, which then is kept. */
  isAnswered: boolean;
  /** To be called where it turns out that the message was handled before. */
  onRepeated?: () => void;
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
): Promise<HandledCall | undefined> {
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
function withHandler(call: HandledCall, name: string): HandledCall {
  const { message } = call;
  return { ...call, message: { ...message, consumer: `${message.consumer}/${name}` } };
}

/** Nest's own Kafka server has parsed the message already. */
async function callOfStockTransport(
  context: KafkaContext,
  digestHeaders: readonly string[],
): Promise<HandledCall> {
  const { key, value, headers, offset, timestamp } = context.getMessage() as unknown as Record<
    'key' | 'value' | 'headers' | 'offset' | 'timestamp',
    unknown
  >;
  const [topic, partition] = [context.getTopic(), context.getPartition()];
  const texts = Object.fromEntries(
    Object.entries((headers ?? {}) as Record<string, unknown>).map(([name, header]) => [
      name,
      textOf(header),
    ]),
  );
  const place = { topic, partition, offset: String(offset) };
  const record = {
    topic,
    partition,
    offset: BigInt(place.offset),
    timestamp: String(timestamp),
    headers: texts,
  } as unknown as IncomingRecord;
  return {
    message: {
      consumer: await groupIdOf(context),
      messageId: messageIdOf(record),
      digest: digestOf(topic, textOf(key), textOf(value), ...digestHeaders.map((name) => texts[name])),
      place,
    },
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
function textOf(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string' || Buffer.isBuffer(value)) return value.toString();
  return JSON.stringify(value);
}
