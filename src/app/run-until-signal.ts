import { endsWithin } from '../messaging/waiting.js';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/** One Ctrl-C reaches a child of npm twice, from the terminal and from npm: what comes this soon is the same. */
const SAME_PRESS_MS = 500;

/** What stopping may take since the signal, whatever it waits for; what is left is not waited for any more. */
export interface StopLimit {
  timeoutMs: number;
  /** What of it is spent on serving as before, once it has started. */
  delayMs: number;
  /** Names what is done at the moment. */
  underWay: () => string;
}

/**
 * Starts something and stops it on the first SIGINT or SIGTERM. One that comes while it starts aborts the signal that
 * `start` is given. A second one ends the process at once, with exit code 1.
 *
 * @param start stops what it had started when it rejects; rejecting with the abort's reason is no failure
 * @throws what `start` and `stop` throw; Error when the time is over
 */
export async function runUntilSignal(
  start: (aborted: AbortSignal) => Promise<{ stop(): Promise<void> }>,
  say: (message: string) => void,
  { timeoutMs, delayMs, underWay }: StopLimit,
): Promise<void> {
  const stopping = new AbortController();
  const { signal: aborted } = stopping;
  let first = 0;
  const onSignal = () => {
    if (aborted.aborted) {
      if (performance.now() - first > SAME_PRESS_MS) process.exit(1);
      return;
    }
    first = performance.now();
    say(
      `Stopping: ${delayMs > 0 ? `serving on for ${delayMs} ms, then ` : ''}finishing what runs. Once more ends it at once.`,
    );
    stopping.abort();
  };
  const signalled = new Promise((resolve) => aborted.addEventListener('abort', resolve));
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    const ended = (async () => {
      const service = await start(aborted);
      await signalled;
      await service.stop();
    })();
    await Promise.race([ended, signalled]);
    if (!(await endsWithin(timeoutMs, ended)))
      throw new Error(`Not everything ended within ${timeoutMs} ms. What did not end: ${underWay()}.`);
  } catch (error) {
    if (error !== aborted.reason) throw error;
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
}
