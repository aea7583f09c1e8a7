import { Counter, type Registry } from 'prom-client';

/** A log that nobody waits for. */
export interface DroppedLines {
  /** Since the start. */
  readonly droppedLines: number;
}

/** Counts the lines of a log that were dropped. */
export function showLog(registry: Registry, log: DroppedLines): void {
  new Counter({
    name: 'people_log_dropped_lines_total',
    help: 'Lines of the log that were dropped, as its reader did not take them in time.',
    registers: [registry],
    collect() {
      this.reset();
      this.inc(log.droppedLines);
    },
  });
}
