import type { MessageHandler } from '@nestjs/microservices';
import { identityAs, type MessageIdentity } from '../message-identity.js';

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

/** What a message pattern may say of its messages, beside `BATCHABLE`. */
export interface HandlerExtras {
  /** Headers that the handler reads: the same id with another of these is another message. */
  digestHeaders?: readonly string[];
  /** True: the handler is given the value's bytes, also where those of others are parsed. */
  keepBinary?: boolean;
}

/** Whether a handler has asked for the value's bytes. */
export const keepsBinary = (handler: MessageHandler | undefined): boolean =>
  (handler?.extras as HandlerExtras | undefined)?.keepBinary === true;

/**
 * A message that several handlers take is handed over to all of them at once.
 *
 * @throws Error some of a topic ask for bytes, and others do not
 */
export function assertOneForm(handlers: ReadonlyMap<unknown, MessageHandler>): void {
  for (const [topic, first] of handlers)
    for (let next = first.next as MessageHandler | undefined; next; next = next.next as typeof next)
      if (keepsBinary(next) !== keepsBinary(first))
        throw new Error(
          `KafkaTransport: some handlers of ${String(topic)} have keepBinary, and others do not: each message is given to all of them.`,
        );
}

/** What our transport knows of the call that a context stands for. */
export interface KnownCall extends HandledCall {
  /** Claimed by the transport itself, for a batch. */
  isClaimed: boolean;
  /** Several handlers take this message, each once. */
  hasSeveralHandlers: boolean;
}

const known = new WeakMap<object, KnownCall>();

/** Says what is called with this context of Nest. */
export function knowCall(context: object, call: KnownCall): void {
  known.set(context, call);
}

/** undefined: the context is none of our transport's. */
export const knownCall = (context: object): KnownCall | undefined => known.get(context);

/** The same message, as one of several handlers takes it: each handles it once. */
export function callOfHandler<Call extends HandledCall>(call: Call, handler: string): Call {
  const { message } = call;
  return { ...call, message: identityAs(message, { consumer: `${message.consumer}/${handler}` }) };
}
