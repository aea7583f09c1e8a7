import { setTimeout as sleep } from 'node:timers/promises';
import { TransactionUsageError } from '../transaction-errors.js';
import type { Caller } from './options.js';

/** How long a statement waits for the nested unit beside it; longer is taken for one that waits for this statement. */
const BESIDE_NESTED_MS = 30_000;

/** A nested unit of work that has a savepoint open. */
interface Nested {
  unit: Caller;
  ended: Promise<void>;
}

/** Which nested unit of work has the connection for itself. */
export class NestedUnits {
  private open: Nested | undefined;

  /** The nested unit that is open, and that `caller` is no part of. */
  beside(caller: Caller | undefined): Nested | undefined {
    return caller && this.open && !isWithin(caller, this.open.unit) ? this.open : undefined;
  }

  /** `unit` is open while `use` runs. */
  async run<T>(unit: Caller, use: () => Promise<T>): Promise<T> {
    const { open: outer } = this;
    let end!: () => void;
    this.open = { unit, ended: new Promise<void>((resolve) => (end = resolve)) };
    try {
      return await use();
    } finally {
      this.open = outer;
      end();
    }
  }
}

function isWithin(caller: Caller | undefined, unit: Caller): boolean {
  while (caller && caller !== unit) caller = caller.parent;
  return caller === unit;
}

/** @throws TransactionUsageError it does not end */
export async function untilEnded({ ended }: Nested): Promise<void> {
  const waiting = new AbortController();
  const isLate = sleep(BESIDE_NESTED_MS, true, { signal: waiting.signal }).catch(() => false);
  if (await Promise.race([ended, isLate]))
    throw new TransactionUsageError(
      `A statement has waited for ${BESIDE_NESTED_MS} ms for the nested unit of work beside it: a nested unit must not wait for what the one around it does meanwhile.`,
    );
  waiting.abort();
}
