import {
  type ExecutionContext,
  Inject,
  Injectable,
  Logger,
  type NestInterceptor,
  type OnModuleInit,
} from '@nestjs/common';
import { INTERCEPTORS_METADATA } from '@nestjs/common/constants.js';
import { MetadataScanner, ModulesContainer } from '@nestjs/core';
import { KafkaContext } from '@nestjs/microservices';
import { PATTERN_EXTRAS_METADATA, PATTERN_METADATA } from '@nestjs/microservices/constants.js';
import type { DataSource } from 'typeorm';
import { type HandlerClaim, useHandlerClaims } from '../../transactions/handler-claims.js';
import { TRANSACTIONS_DATA_SOURCE } from '../../transactions/transaction-runner.js';
import { TRANSACTIONAL_OPTIONS } from '../../transactions/transactional.metadata.js';
import { notingThrown } from '../../transactions/unit-failures.js';
import { callOfHandler, type HandledCall, type HandlerExtras, knownCall } from '../consuming/handled-call.js';
import { DeadLetters } from '../dead-letters.js';
import { loggedPlace } from '../delivery.js';
import { describe } from '../failure-policy.js';
import { Inbox, MessageIdConflictError } from '../inbox.js';
import { digestOfMessage, messageIdOf, ownIdOf, textOrBytes } from '../message-identity.js';
import type { IncomingRecord } from '../records/record.js';
import { traceHeadersOf } from '../../tracing/trace-context.js';
import { replyAddressOf } from './replies/address.js';

/** A message of Nest's own transport, with the record as far as it can be had. */
interface StockCall extends HandledCall {
  record: IncomingRecord;
}

/** Has the handlers that begin units of work on this DataSource (`@Transactional`) run once per message. */
@Injectable()
export class HandlerInbox implements OnModuleInit {
  private readonly logger = new Logger(HandlerInbox.name);

  constructor(
    @Inject(TRANSACTIONS_DATA_SOURCE) private readonly dataSource: DataSource,
    private readonly inbox: Inbox,
    private readonly deadLetters: DeadLetters,
    modules: ModulesContainer,
  ) {
    // Before a transport asks for them.
    haveFailuresNoted(modules);
  }

  onModuleInit(): void {
    useHandlerClaims(this.dataSource, {
      isClaimed: (context) => knownCall(context.switchToRpc().getContext())?.isClaimed ?? false,
      claimFor: (context) => this.claimFor(context),
    });
  }

  private async claimFor(execution: ExecutionContext): Promise<HandlerClaim | undefined> {
    const call = await callOf(execution);
    if (!call) return undefined;
    const ofCall = this.inbox.claimOf(call);
    if (!('record' in call)) return ofCall;
    // Nest's own transport knows of no trace.
    const claim = { ...ofCall, trace: traceHeadersOf(call.record.headers) };
    if (call.isAnswered) return claim;
    const find = async () => {
      const kept = await claim.find();
      if (!kept) return undefined;
      return async () => {
        try {
          return await kept();
        } catch (error) {
          return this.deadLetter(call, error);
        }
      };
    };
    return { ...claim, find };
  }

  /** Nest's own transport would log the conflict and go on: nobody would see the message again. */
  private async deadLetter({ message, record }: StockCall, error: unknown): Promise<unknown[]> {
    if (!(error instanceof MessageIdConflictError)) throw error;
    if (await this.deadLetters.add({ message, record, attempts: 1 }, describe(error))) {
      const where = { messageId: message.messageId, ...loggedPlace(record) };
      this.logger.warn({ msg: 'message dead-lettered', ...where, code: describe(error).code });
    }
    return [];
  }
}

const NOTES_FAILURES: NestInterceptor = {
  intercept: (context, next) => next.handle().pipe(notingThrown(context.getHandler())),
};

/** Handlers of messages tell what they fail with before filters make something else of it; those that are `@Transactional` do. */
function haveFailuresNoted(modules: ModulesContainer): void {
  const scanner = new MetadataScanner();
  for (const { metatype } of [...modules.values()].flatMap(({ controllers }) => [...controllers.values()])) {
    const methods = (metatype?.prototype ?? {}) as Record<string, object>;
    for (const name of scanner.getAllMethodNames(methods)) {
      const handler = methods[name]!;
      if (!Reflect.hasMetadata(PATTERN_METADATA, handler)) continue;
      if (Reflect.hasMetadata(TRANSACTIONAL_OPTIONS, handler)) continue;
      const bound = (Reflect.getMetadata(INTERCEPTORS_METADATA, handler) ?? []) as unknown[];
      if (!bound.includes(NOTES_FAILURES))
        Reflect.defineMetadata(INTERCEPTORS_METADATA, [NOTES_FAILURES, ...bound], handler);
    }
  }
}

/** The message that is handled; undefined where there is none of Kafka, or one that is claimed already. */
async function callOf(execution: ExecutionContext): Promise<HandledCall | StockCall | undefined> {
  const context = execution.switchToRpc().getContext<unknown>();
  if (!(context instanceof KafkaContext)) return undefined;
  const call = knownCall(context);
  if (call?.isClaimed) return undefined;
  const handler = `${execution.getClass().name}.${execution.getHandler().name}`;
  if (call) return call.hasSeveralHandlers ? callOfHandler(call, handler) : call;
  const extras = Reflect.getMetadata(PATTERN_EXTRAS_METADATA, execution.getHandler()) as
    HandlerExtras | undefined;
  // How many handlers take a message is known to our transport only: here each has it for itself.
  return callOfHandler(await callOfStockTransport(context, extras?.digestHeaders ?? []), handler);
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

const groupIds = new WeakMap<object, Promise<string>>();

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
