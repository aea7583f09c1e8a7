import type { MessageError } from '../errors/error-responses.js';

/** What a message was answered with: the values its handler gave, or the error. */
export type MessageAnswer = { values: readonly unknown[] } | { error: MessageError };

/** What is known of a message that was handled. */
export interface HandledMessage {
  digest: string;
  /** undefined: nobody had asked for an answer. */
  answer: MessageAnswer | undefined;
}
