import type { DataSource } from 'typeorm';
import { ConflictQueueFullError } from './transaction-errors.js';

/** How a unit of work holds its key: alone, or together with so many others that share it too. */
export interface Hold {
  share: number;
  /** How many may wait for the key. */
  atMost: number;
  signal: AbortSignal | undefined;
}

interface Waiter {
  share: number;
  proceed: () => void;
}

interface Line {
  holders: number;
  /** How many may hold it together; 1 for a holder that is to be alone. */
  share: number;
  waiters: Waiter[];
}

const queues = new WeakMap<DataSource, ConflictQueue>();

/**
 * Lets units of work of one key run one after another, in the order they came; single statements together, as their
 * connection keeps the order. Across processes, the database's own conflicts and the retry remain the guard.
 */
export class ConflictQueue {
  /** The keys that are held. */
  private readonly lines = new Map<string, Line>();

  /** The one of a database: whoever runs units of work on it in this process waits in the same lines. */
  static of(dataSource: DataSource): ConflictQueue {
    let queue = queues.get(dataSource);
    if (!queue) queues.set(dataSource, (queue = new ConflictQueue()));
    return queue;
  }

  /**
   * Waits for the turn of `key`.
   *
   * @returns undefined when it has come already, so that nobody has to wait at all
   * @throws ConflictQueueFullError too many wait already
   * @throws the reason of `signal`
   */
  take(key: string, { share, atMost, signal }: Hold): Promise<void> | undefined {
    const line = this.lines.get(key);
    if (!line) {
      this.lines.set(key, { holders: 1, share, waiters: [] });
      return undefined;
    }
    const { waiters } = line;
    if (waiters.length === 0 && hasRoom(line, share)) {
      line.holders++;
      return undefined;
    }
    if (waiters.length >= atMost) return Promise.reject(new ConflictQueueFullError());
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        waiters.splice(waiters.indexOf(waiter), 1);
        // Who stood behind it may fit in.
        this.admit(key, line);
        reject(signal!.reason as Error);
      };
      const proceed = () => {
        signal?.removeEventListener('abort', giveUp);
        resolve();
      };
      const waiter = { share, proceed };
      waiters.push(waiter);
      signal?.addEventListener('abort', giveUp, { once: true });
    });
  }

  /** Ends a turn of `key` and begins the next. */
  leave(key: string): void {
    const line = this.lines.get(key)!;
    line.holders--;
    this.admit(key, line);
  }

  private admit(key: string, line: Line): void {
    const { waiters } = line;
    while (waiters[0] && (line.holders === 0 || hasRoom(line, waiters[0].share))) {
      const next = waiters.shift()!;
      line.share = next.share;
      line.holders++;
      next.proceed();
    }
    if (line.holders === 0) this.lines.delete(key);
  }
}

const hasRoom = (line: Line, share: number) => share > 1 && line.share > 1 && line.holders < line.share;
