import { Subject } from 'rxjs';
import { ApplicationError } from '../../errors/application-error.js';

/**
 * A handler did not end in time, and is not waited for any more. What it does later counts for nothing here; what it does
 * elsewhere nobody can take back. HTTP 504.
 */
export class HandlerTimeoutError extends ApplicationError {
  constructor(topic: string, timeoutMs: number) {
    super(
      `The handler of ${topic} did not end within ${timeoutMs} ms; what was asked for may still be done. Look before sending it again.`,
      { type: 'handler-timeout', status: 504 },
    );
  }
}

/** A handler gives more values than one answer may have. HTTP 500. */
export class TooManyValuesError extends ApplicationError {
  constructor(topic: string, atMost: number) {
    super(
      `The handler of ${topic} gives more than ${atMost} values; what was asked for may be done. Ask for less at once.`,
      { type: 'too-many-values', status: 500 },
    );
  }
}

/**
 * Calls a handler that has so long.
 *
 * @param call is told by `overdue` that nobody waits for it any more
 * @throws HandlerTimeoutError and what `call` throws
 */
export function endedInTime<T>(
  topic: string,
  timeoutMs: number,
  call: (overdue: Subject<void>) => Promise<T>,
): Promise<T> {
  const overdue = new Subject<void>();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new HandlerTimeoutError(topic, timeoutMs));
      overdue.next();
    }, timeoutMs);
    call(overdue)
      .finally(() => clearTimeout(timer))
      .then(resolve, reject);
  });
}
