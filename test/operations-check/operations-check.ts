import { setTimeout as sleep } from 'node:timers/promises';
import { withClosers } from '../support/closers.js';
import { randomOf } from '../support/random.js';
import { FAULTS, type Fault } from './faults.js';
import type { Report } from './report.js';
import { CALM_MS, play } from './round.js';
import { openStage } from './stage.js';

export interface CheckOptions {
  /** The order of the faults where they are not named. */
  seed: number;
  /** How long a fault lasts that lasts for a while. */
  seconds: number;
  /** Names, in their order; all where left out. */
  faults?: readonly string[];
  /** Where the check's own PostgreSQL and Kafka live; removed by the caller. */
  directory: string;
  /** Ends it behind the fault that is being played. */
  signal?: AbortSignal;
  onProgress?: (message: string) => void;
}

const NOTHING: Fault = {
  ...{ name: 'nothing', serves: true, isTold: false, isCalm: true },
  strike: () => sleep(2 * CALM_MS),
};

/**
 * Lets faults happen one after another to three instances of the service under load, and holds after each what was told of every
 * request and message against what is there; and notes what told of the fault.
 */
export const checkOperations = (options: CheckOptions): Promise<Report> =>
  withClosers(async (closers) => {
    const { seconds, directory, signal, onProgress } = options;
    const report: Report = { rows: [], leftOut: [], violations: [] };
    onProgress?.('starting');
    const stage = await openStage(directory, closers, (violation) => {
      // Ctrl-C in a terminal reaches the services, too.
      if (!signal?.aborted) report.violations.push(violation);
    });
    let lively: ReadonlySet<string> = new Set();
    for (const fault of [NOTHING, ...faultsOf(options)]) {
      if (signal?.aborted) break;
      onProgress?.(fault.name);
      const { row, isMade, moved, violations } = await play(stage, fault, seconds * 1000, lively);
      if (fault === NOTHING) lively = moved;
      if (!isMade) report.leftOut.push(fault.name);
      else if (row) report.rows.push(row);
      report.violations.push(...violations.map((violation) => `${fault.name}: ${violation}`));
      // What is left would be the next one's.
      if (!row) break;
    }
    return report;
  });

function faultsOf({ faults, seed }: CheckOptions): Fault[] {
  if (faults) return faults.map((name) => FAULTS.find((fault) => fault.name === name)!);
  const random = randomOf(seed);
  return FAULTS.map((fault) => ({ fault, place: random() }))
    .sort((a, b) => a.place - b.place)
    .map(({ fault }) => fault);
}
