/** The levels of the log, each writing more than those before it. */
export const LOG_LEVELS = ['silent', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

interface Leveled {
  level: LogLevel;
}

/**
 * Has each SIGUSR2 write more: one level after another down to `trace`, and then what it was at first again.
 *
 * @returns ends that
 */
export function levelBySignal(logger: Leveled): () => void {
  const first = logger.level;
  const onSignal = () => {
    const next = LOG_LEVELS[LOG_LEVELS.indexOf(logger.level) + 1];
    logger.level = next ?? first;
  };
  process.on('SIGUSR2', onSignal);
  return () => process.off('SIGUSR2', onSignal);
}
