const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/**
 * Starts something and stops it on the first SIGINT or SIGTERM, also on one that comes while it starts. A second signal
 * ends the process at once, with exit code 1.
 *
 * @throws what `start` throws
 */
export async function runUntilSignal(
  start: () => Promise<{ stop(): Promise<void> }>,
  say: (message: string) => void,
): Promise<void> {
  let stopNow!: () => void;
  const signalled = new Promise<void>((resolve) => (stopNow = resolve));
  let signals = 0;
  const onSignal = () => {
    if (++signals > 1) process.exit(1);
    say('Stopping: finishing what runs. Once more stops at once.');
    stopNow();
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    const service = await start();
    await signalled;
    await service.stop();
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
}
