import type { DataSource } from 'typeorm';
import { ConflictQueueFullError } from './transaction-errors.js';

interface Waiter {
  proceed: () => void;
}

const queues = new WeakMap<DataSource, ConflictQueue>();

/**
 * Lets units of work of one key run one after another, in the order they came. Across processes, the database's own
 * conflicts and the retry remain the guard.
 */
export class ConflictQueue {
  /** For each key that is taken, who waits for it. */
  private readonly keys = new Map<string, Waiter[]>();

  /** The one of a database: whoever runs units of work on it in this process waits in the same lines. */
  static of(dataSource: DataSource): ConflictQueue {
    let queue = queues.get(dataSource);
    if (!queue) queues.set(dataSource, (queue = new ConflictQueue()));
    return queue;
  }

  /**
   * Waits for the turn of `key`.
   *
   * @param atMost how many may wait for it
   * @returns what ends the turn; undefined when the key is free, so that nobody has to wait at all
   * @throws ConflictQueueFullError too many wait already
   * @throws the reason of `signal`
   */
  take(key: string, atMost: number, signal: AbortSignal | undefined): Promise<void> | undefined {
    const waiters = this.keys.get(key);
    if (!waiters) {
      this.keys.set(key, []);
      return undefined;
    }
    if (waiters.length >= atMost) return Promise.reject(new ConflictQueueFullError());
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        waiters.splice(waiters.indexOf(waiter), 1);
        reject(signal!.reason as Error);
      };
      const waiter = {
        proceed: () => {
          signal?.removeEventListener('abort', giveUp);
          resolve();
        },
      };
      waiters.push(waiter);
      signal?.addEventListener('abort', giveUp, { once: true });
    });
  }

  /** Ends the turn of `key` and begins the next. */
  leave(key: string): void {
    const next = this.keys.get(key)!.shift();
    if (next) next.proceed();
    else this.keys.delete(key);
  }
}
