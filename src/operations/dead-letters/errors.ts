import { ApplicationError, unchanged } from '../../errors/application-error.js';
import type { DeadLetterDetails } from '../../messaging/dead-letters.js';

/** There is no dead letter of this number, or it was removed with what is old. HTTP 404. */
export class DeadLetterNotFoundError extends ApplicationError {
  constructor(seq: string) {
    super(`There is no dead letter ${seq}.`, { type: 'dead-letter-not-found', status: 404 });
  }
}

/** The dead letter is in no state in which this can be done: somebody else was first. HTTP 409. */
export class DeadLetterSettledError extends ApplicationError {
  constructor({ seq, state }: Pick<DeadLetterDetails, 'seq' | 'state'>) {
    super(unchanged(`The dead letter ${seq} is ${state}`), { type: 'dead-letter-settled', status: 409 });
  }
}

/** No messages wait for the key, or they are handled already. HTTP 404. */
export class WaitingKeyNotFoundError extends ApplicationError {
  constructor(topic: string) {
    super(`No messages of the topic ${topic} wait for this key.`, {
      type: 'waiting-key-not-found',
      status: 404,
    });
  }
}
