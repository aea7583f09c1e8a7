import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';

/**
 * Waits for `step`, at most so long. What has ended in time counts, also where this process was too busy to see it.
 *
 * @returns false where it did not end in time; what becomes of it then is nobody's business
 * @throws what `step` throws in time
 */
export async function endsWithin(milliseconds: number, step: Promise<unknown>): Promise<boolean> {
  const over = new AbortController();
  const late = sleep(Math.max(0, milliseconds), undefined, { signal: over.signal })
    .then(() => nextTurn(false))
    .catch(() => false);
  try {
    return await Promise.race([step.then(() => true), late]);
  } finally {
    over.abort();
  }
}

/** Steps of closing, one after another until a deadline; one that hangs is left to itself, and leaves time to the others. */
export class ClosingSteps {
  /** Names of those that did not end in time. */
  readonly unfinished: string[] = [];
  private readonly deadline: number;

  /** @param withinMs what all of them may take */
  constructor(withinMs: number) {
    this.deadline = performance.now() + withinMs;
  }

  /** What the next step may take, in ms: half of what is left. */
  get nextStepMs(): number {
    return Math.max(0, this.deadline - performance.now()) / 2;
  }

  /** @returns false where the step did not end in time @throws what it throws in time */
  async end(name: string, step: Promise<unknown>): Promise<boolean> {
    const hasEnded = await endsWithin(this.nextStepMs, step);
    if (!hasEnded) this.unfinished.push(name);
    return hasEnded;
  }
}

/** Waits, until `signal` says to go on. */
export async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await sleep(milliseconds, undefined, { signal }).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}
