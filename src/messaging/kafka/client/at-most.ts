import { setTimeout as sleep } from 'node:timers/promises';

/** Resolves when `work` has ended, or after `milliseconds`. */
export async function atMost(milliseconds: number, work: Promise<unknown>): Promise<void> {
  const limit = new AbortController();
  const ended = work.then(
    () => limit.abort(),
    () => limit.abort(),
  );
  await Promise.race([
    ended,
    sleep(milliseconds, undefined, { signal: limit.signal }).catch(() => undefined),
  ]);
}
