/** The levels of the log, each writing more than those before it. */
export const LOG_LEVELS = ['silent', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Who has the level changed, and why; nobody is known where it is a signal. */
export interface LevelChange {
  actor?: string;
  reason?: string;
}

/** A logger whose level can be changed while it writes. */
export interface Leveled {
  readonly level: LogLevel;
  setLevel(level: LogLevel, change: LevelChange): void;
}
/** The logger of the process, for routes. */
export const LEVELED = Symbol('LEVELED');

/**
 * Has each SIGUSR2 write more: one level after another down to `trace`, and then what it was at first again.
 *
 * @returns ends that
 */
export function levelBySignal(logger: Leveled): () => void {
  const first = logger.level;
  const onSignal = () => {
    const next = LOG_LEVELS[LOG_LEVELS.indexOf(logger.level) + 1];
    logger.setLevel(next ?? first, { reason: 'SIGUSR2' });
  };
  process.on('SIGUSR2', onSignal);
  return () => process.off('SIGUSR2', onSignal);
}
