import { KafkaContext, type MessageHandler } from '@nestjs/microservices';
import { lastValueFrom, type Observable, type Subject, take, takeUntil, toArray } from 'rxjs';
import { InvalidInputError } from '../../errors/application-error.js';
import { rememberingFailures } from '../../transactions/unit-failures.js';
import { keepsBinary, knowCall } from '../consuming/handled-call.js';
import { endedInTime, TooManyValuesError } from '../consuming/handler-time.js';
import type { Delivery } from '../delivery.js';
import type { KafkaConsumer, KafkaDriver, KafkaProducer } from '../kafka-driver.js';
import type { Serialized } from './replies/sending.js';

type KafkaMessage = ReturnType<KafkaContext['getMessage']>;

/** What is taken of Nest's server, whose handlers and hooks are set after it is made. */
export interface NestServer {
  /** Topics, or patterns of their names, that there are handlers for. */
  patterns(): (string | RegExp)[];
  handlerOf(topic: string): MessageHandler | undefined;
  /** @param keepBinary the value is handed over as it came, whatever is chosen for the transport */
  parse(record: object, keepBinary: boolean): KafkaMessage;
  deserialize(message: KafkaMessage, topic: string): { data: unknown } | Promise<{ data: unknown }>;
  serialize: (response: unknown) => Serialized | Promise<Serialized>;
  toObservable(result: unknown): Observable<unknown>;
  onStart(context: KafkaContext, call: () => Promise<unknown>): unknown;
  onEnd(context: KafkaContext): void;
}

/** The clients that are connected at the moment. */
export interface ConnectedClients {
  /** Makes others; there once messages are to be read. */
  driver?: KafkaDriver | undefined;
  consumer?: KafkaConsumer | undefined;
  /** Of replies, whose topics come and go. */
  producer?: KafkaProducer | undefined;
  /** Of what is in the outbox. */
  relayProducer?: KafkaProducer | undefined;
}

export interface CallSettings {
  server: NestServer;
  clients: ConnectedClients;
  handlerTimeoutMs: number;
  maxReplyValues: number;
  /** A message turns out to have been handled before. */
  onRepeated: () => void;
}

/** Calls the handlers of messages, as Nest's own server does. */
export class HandlerCalls {
  constructor(private readonly settings: CallSettings) {}

  /** @returns the values that the handler gave @throws what it throws, or why it was not called or not waited for */
  call(delivery: Delivery): Promise<unknown[]> {
    const { handlerTimeoutMs } = this.settings;
    return endedInTime(delivery.record.topic, handlerTimeoutMs, (overdue) =>
      this.callHandler(delivery, overdue),
    );
  }

  private async callHandler(delivery: Delivery, overdue: Subject<void>): Promise<unknown[]> {
    const { handler, record, refusal } = delivery;
    const { topic, value } = record;
    if (refusal) throw refusal;
    if (!handler) throw new InvalidInputError(`No handler takes messages of the topic ${topic}.`);
    let conflict: Error | undefined;
    const context = this.contextOf(delivery, (error) => {
      conflict = error;
      delivery.isRepeated = false;
    });
    const packet = await this.settings.server.deserialize(context.getMessage(), topic);
    // Nest would hand over the whole record.
    const payload: unknown = value === null ? null : packet.data;
    const handle = async () => {
      try {
        const result: unknown = await (handler as MessageHandler<unknown, KafkaContext>)(payload, context);
        return await this.valuesOf(delivery, result, overdue);
      } finally {
        // The host's filters may have turned the conflict into something else, but the message was not handled.
        if (conflict) throw conflict;
      }
    };
    return this.withProcessingHooks(context, () => rememberingFailures(handle));
  }

  /** A new one for each call, as a handler may change the message in it. */
  private contextOf(delivery: Delivery, onConflict: (error: Error) => void): KafkaContext {
    const { server, clients, onRepeated } = this.settings;
    const { record, message, handler, isBatchable, replyTo, bytes } = delivery;
    const raw = { ...record, offset: String(record.offset), size: bytes, attributes: 0 };
    const context = new KafkaContext([
      server.parse(raw, keepsBinary(handler)),
      record.partition,
      record.topic,
      clients.consumer?.raw as never,
      // Heartbeats are the driver's business.
      () => Promise.resolve(),
      clients.producer?.raw as never,
    ]);
    knowCall(context, {
      message,
      isAnswered: replyTo !== undefined,
      isClaimed: isBatchable,
      hasSeveralHandlers: handler?.next !== undefined,
      onRepeated: () => {
        delivery.isRepeated = true;
        onRepeated();
      },
      onConflict,
    });
    return context;
  }

  /** All values that a handler gives, or none where no sender waits for them. */
  private async valuesOf(
    { record, replyTo }: Delivery,
    result: unknown,
    overdue: Subject<void>,
  ): Promise<unknown[]> {
    const { server, maxReplyValues: atMost } = this.settings;
    const given = server.toObservable(result).pipe(takeUntil(overdue));
    if (!replyTo) {
      await lastValueFrom(given, { defaultValue: undefined });
      return [];
    }
    const values = await lastValueFrom(given.pipe(take(atMost + 1), toArray()), { defaultValue: [] });
    if (values.length > atMost) throw new TooManyValuesError(record.topic, atMost);
    return values;
  }

  /** Around each call of a handler; what becomes of the call does not depend on what the hooks return. */
  private withProcessingHooks<T>(context: KafkaContext, call: () => Promise<T>): Promise<T> {
    const { server } = this.settings;
    return new Promise((resolve, reject) => {
      const done = () => {
        const called = call().finally(() => server.onEnd(context));
        called.then(resolve, reject);
        return called;
      };
      // A hook may reject with the failure of the call, which has rejected the promise already.
      Promise.resolve(server.onStart(context, done)).catch(reject);
    });
  }
}
