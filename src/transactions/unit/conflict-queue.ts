import type { DataSource } from 'typeorm';
import { currentTransaction } from '../transaction-context.js';
import { ConflictKeyDeadlockError, ConflictQueueFullError } from '../transaction-errors.js';
import type { Unit } from './unit-of-work.js';

/** How a unit of work holds its key: alone, or together with so many others that share it too. */
export interface Hold {
  owner: Owner;
  /** The ids of the units of work around it, which can't end before it has. */
  within: readonly string[];
  share: number;
  /** How many may wait for the key. */
  atMost: number;
  signal: AbortSignal | undefined;
}

/** A unit of work. */
interface Owner {
  readonly id: string;
}

interface Waiter {
  owner: Owner;
  within: readonly string[];
  line: Line;
  share: number;
  proceed: () => void;
}

interface Line {
  holders: Set<Owner>;
  /** How many may hold it together; 1 for a holder that is to be alone. */
  share: number;
  waiters: Waiter[];
}

/**
 * Runs `use` in the turn of the unit's `conflictKey`, at once where it has none.
 *
 * @throws as ConflictQueue.take()
 */
export async function inTurn<T>(
  dataSource: DataSource,
  unit: Unit,
  { share, atMost }: Pick<Hold, 'share' | 'atMost'>,
  use: () => Promise<T>,
): Promise<T> {
  const { conflictKey } = unit.options;
  if (conflictKey === undefined) return use();
  const queue = ConflictQueue.of(dataSource);
  const turn = queue.take(conflictKey, {
    owner: unit,
    within: unitsAround(),
    share,
    atMost,
    signal: unit.signal,
  });
  if (turn) await turn;
  unit.queueWaitMs = performance.now() - unit.startedAt;
  try {
    return await use();
  } finally {
    queue.leave(conflictKey, unit);
  }
}

/** The ids of the units of work that the calling code runs in, on whatever DataSource. */
function unitsAround(): string[] {
  const ids: string[] = [];
  for (let context = currentTransaction(); context; context = context.parent) ids.push(context.id);
  return ids;
}

const queues = new WeakMap<DataSource, ConflictQueue>();
/** Those of all queues whose units of work are within others: only they can be waited for by whom they wait for. */
const waitingWithin = new Set<Waiter>();

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
   * @throws ConflictKeyDeadlockError who has the key waits, in the end, for a unit of work around this one
   * @throws the reason of `signal`
   */
  take(key: string, { owner, within, share, atMost, signal }: Hold): Promise<void> | undefined {
    const line = this.lines.get(key);
    if (!line) {
      this.lines.set(key, { holders: new Set([owner]), share, waiters: [] });
      return undefined;
    }
    const { waiters } = line;
    if (waiters.length === 0 && hasRoom(line, share)) {
      line.holders.add(owner);
      return undefined;
    }
    if (waiters.length >= atMost) return Promise.reject(new ConflictQueueFullError());
    if (within.length > 0 && waitsFor(line, within)) return Promise.reject(new ConflictKeyDeadlockError());
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        waiters.splice(waiters.indexOf(waiter), 1);
        waitingWithin.delete(waiter);
        // Who stood behind it may fit in.
        this.admit(key, line);
        reject(signal!.reason as Error);
      };
      const proceed = () => {
        signal?.removeEventListener('abort', giveUp);
        waitingWithin.delete(waiter);
        resolve();
      };
      const waiter = { owner, within, line, share, proceed };
      waiters.push(waiter);
      if (within.length > 0) waitingWithin.add(waiter);
      signal?.addEventListener('abort', giveUp, { once: true });
    });
  }

  /** Ends a turn of `key` and begins the next. */
  leave(key: string, owner: Owner): void {
    const line = this.lines.get(key)!;
    line.holders.delete(owner);
    this.admit(key, line);
  }

  private admit(key: string, line: Line): void {
    const { waiters } = line;
    while (waiters[0] && (line.holders.size === 0 || hasRoom(line, waiters[0].share))) {
      const next = waiters.shift()!;
      line.share = next.share;
      line.holders.add(next.owner);
      next.proceed();
    }
    if (line.holders.size === 0) this.lines.delete(key);
  }
}

const hasRoom = (line: Line, share: number) => share > 1 && line.share > 1 && line.holders.size < line.share;

/** True when who holds the line waits for one of these units: itself, or by a unit within it that waits for another line. */
function waitsFor(line: Line, units: readonly string[], seen = new Set<Line>()): boolean {
  if (seen.has(line)) return false;
  seen.add(line);
  for (const { id } of line.holders) {
    if (units.includes(id)) return true;
    for (const waiter of waitingWithin)
      if (waiter.within.includes(id) && waitsFor(waiter.line, units, seen)) return true;
  }
  return false;
}
