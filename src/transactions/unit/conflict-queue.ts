import type { DataSource } from 'typeorm';
import { currentTransaction } from '../transaction-context.js';
import { ConflictKeyDeadlockError, ConflictQueueFullError } from '../transaction-errors.js';
import { publishNotBegun, type Unit } from './unit-of-work.js';

/** How a unit of work holds its key: alone, or together with some others that don't mind. */
interface Hold {
  owner: Owner;
  /** The ids of the units of work around it, which can't end before it has. */
  within: readonly string[];
  atOnce: number;
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
  held: HeldKey;
  atOnce: number;
  proceed: () => void;
}

/** A key that is held, and who waits for it. */
interface HeldKey {
  holders: Owner[];
  /** How many may hold it together; 1 for a holder that is to be alone. */
  atOnce: number;
  waiters: Waiter[];
}

/**
 * Runs `use` in the turn of the unit's `conflictKey`, at once where it has none.
 *
 * @throws as ConflictQueue.take()
 */
export function inTurn<T>(
  dataSource: DataSource,
  unit: Unit,
  room: Pick<Hold, 'atOnce' | 'atMost'>,
  use: () => Promise<T>,
): Promise<T> {
  const { conflictKey } = unit.options;
  return conflictKey === undefined ? use() : inTurnOf(conflictKey, dataSource, unit, room, use);
}

async function inTurnOf<T>(
  conflictKey: string,
  dataSource: DataSource,
  unit: Unit,
  { atOnce, atMost }: Pick<Hold, 'atOnce' | 'atMost'>,
  use: () => Promise<T>,
): Promise<T> {
  const queue = ConflictQueue.of(dataSource);
  try {
    const hold = { owner: unit, within: unitsAround(), atOnce, atMost, signal: unit.signal };
    const turn = queue.take(conflictKey, hold);
    if (turn) await turn;
  } catch (error) {
    publishNotBegun(unit, error);
    throw error;
  }
  unit.queueWaitMs = performance.now() - unit.startedAt;
  return queue.during(conflictKey, unit, use);
}

/** True where nobody has the turn of the key, nor waits for it. */
export const isFree = (dataSource: DataSource, conflictKey: string): boolean =>
  !ConflictQueue.of(dataSource).has(conflictKey);

/** Runs `use` in the turn of a key that is free. */
export function inFreeTurn<T>(
  dataSource: DataSource,
  conflictKey: string,
  use: () => Promise<T>,
): Promise<T> {
  const queue = ConflictQueue.of(dataSource);
  const owner = { id: '' };
  void queue.take(conflictKey, { owner, within: [], atOnce: 1, atMost: 0, signal: undefined });
  return queue.during(conflictKey, owner, use);
}

/** The ids of the units of work that the calling code runs in, on whatever DataSource. */
function unitsAround(): string[] {
  const ids: string[] = [];
  for (let context = currentTransaction(); context; context = context.parent) ids.push(context.id);
  return ids;
}

const queues = new WeakMap<DataSource, ConflictQueue>();
/** The waiters, of all queues, whose unit of work runs inside another one: only they can wait in a ring. */
const waitingWithin = new Set<Waiter>();

/**
 * Lets units of work of one key run one after another, in the order they came; single statements together, as their
 * connection keeps the order. Across processes, the database's own conflicts and the retry remain the guard.
 */
class ConflictQueue {
  /** The keys that are held. */
  private readonly keys = new Map<string, HeldKey>();

  /** The one of a database: whoever runs units of work on it in this process waits for the same keys. */
  static of(dataSource: DataSource): ConflictQueue {
    let queue = queues.get(dataSource);
    if (!queue) queues.set(dataSource, (queue = new ConflictQueue()));
    return queue;
  }

  has(key: string): boolean {
    return this.keys.has(key);
  }

  /**
   * Waits for the turn of `key`.
   *
   * @returns undefined when it has come already, so that nobody has to wait at all
   * @throws ConflictQueueFullError too many wait already
   * @throws ConflictKeyDeadlockError who has the key waits, in the end, for a unit of work around this one
   * @throws the reason of `signal`
   */
  take(key: string, { owner, within, atOnce, atMost, signal }: Hold): Promise<void> | undefined {
    const held = this.keys.get(key);
    if (!held) {
      this.keys.set(key, { holders: [owner], atOnce, waiters: [] });
      return undefined;
    }
    const { waiters } = held;
    if (waiters.length === 0 && hasRoom(held, atOnce)) {
      held.holders.push(owner);
      return undefined;
    }
    if (waiters.length >= atMost) return Promise.reject(new ConflictQueueFullError());
    if (within.length > 0 && waitsFor(held, within)) return Promise.reject(new ConflictKeyDeadlockError());
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        waiters.splice(waiters.indexOf(waiter), 1);
        waitingWithin.delete(waiter);
        // Who stood behind it may fit in.
        this.admit(key, held);
        reject(signal!.reason as Error);
      };
      const proceed = () => {
        signal?.removeEventListener('abort', giveUp);
        waitingWithin.delete(waiter);
        resolve();
      };
      const waiter = { owner, within, held, atOnce, proceed };
      waiters.push(waiter);
      if (within.length > 0) waitingWithin.add(waiter);
      signal?.addEventListener('abort', giveUp, { once: true });
    });
  }

  /** Runs `use` in a turn of `key` that was taken, and then begins the next. */
  async during<T>(key: string, owner: Owner, use: () => Promise<T>): Promise<T> {
    try {
      return await use();
    } finally {
      this.leave(key, owner);
    }
  }

  private leave(key: string, owner: Owner): void {
    const held = this.keys.get(key)!;
    held.holders.splice(held.holders.indexOf(owner), 1);
    this.admit(key, held);
  }

  private admit(key: string, held: HeldKey): void {
    const { waiters } = held;
    while (waiters[0] && (held.holders.length === 0 || hasRoom(held, waiters[0].atOnce))) {
      const next = waiters.shift()!;
      held.atOnce = next.atOnce;
      held.holders.push(next.owner);
      next.proceed();
    }
    if (held.holders.length === 0) this.keys.delete(key);
  }
}

const hasRoom = (held: HeldKey, atOnce: number) =>
  atOnce > 1 && held.atOnce > 1 && held.holders.length < held.atOnce;

/** True when who holds the key waits for one of these units: itself, or by a unit within it that waits for another key. */
function waitsFor(held: HeldKey, units: readonly string[], seen = new Set<HeldKey>()): boolean {
  if (seen.has(held)) return false;
  seen.add(held);
  for (const { id } of held.holders) {
    if (units.includes(id)) return true;
    for (const waiter of waitingWithin)
      if (waiter.within.includes(id) && waitsFor(waiter.held, units, seen)) return true;
  }
  return false;
}
