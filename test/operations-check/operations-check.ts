import { setTimeout as sleep } from 'node:timers/promises';
import { withClosers } from '../support/closers.js';
import { alertsFor, readAlerts } from './alerts.js';
import { compare } from './comparison.js';
import { FAULTS, type Fault } from './faults.js';
import { HttpLoad } from './http-load.js';
import type { LogLine } from './instances.js';
import { Ledger } from './ledger.js';
import { MessageLoad } from './message-load.js';
import { MetricsWatch } from './metrics-watch.js';
import { settled } from './settling.js';
import { openStage, type Stage } from './stage.js';

export interface CheckOptions {
  /** How long a fault lasts that lasts for a while. */
  seconds: number;
  /** Names, in their order; all where left out. */
  faults?: readonly string[];
  /** Where the check's own PostgreSQL and Kafka live; removed by the caller. */
  directory: string;
  signal?: AbortSignal;
  onProgress?: (message: string) => void;
}

/** What came of one fault. */
export interface Row {
  fault: string;
  requests: { done: number; refused: number; unknown: number };
  /** Where no request may fail: those that did. */
  failed: number;
  messages: number;
  lost: number;
  doubled: number;
  falselyRefused: number;
  /** What told of it: series that stand still else, alerts that look at one of them, and lines of the log with their numbers. */
  metrics: string[];
  alerts: string[];
  lines: string[];
}

export interface Report {
  rows: Row[];
  /** Faults that can't be made here. */
  leftOut: string[];
  violations: string[];
}

/** Before a fault, and behind it. */
const CALM_MS = 1_500;
const TOLD = 5;

/**
 * Lets faults happen one after another to three instances of the service under load, and holds after each what was told of every
 * request and message against what is there; and notes what told of the fault.
 */
export const checkOperations = (options: CheckOptions): Promise<Report> =>
  withClosers(async (closers) => {
    const report: Report = { rows: [], leftOut: [], violations: [] };
    const onViolation = (violation: string) => {
      // Ctrl-C in a terminal reaches the services, too.
      if (!options.signal?.aborted) report.violations.push(violation);
    };
    const faults = FAULTS.filter(({ name }) => options.faults?.includes(name) ?? true);
    options.onProgress?.('starting');
    const stage = await openStage(options.directory, closers, onViolation);
    // What moves also when all is well, and so tells of nothing.
    const calm: Fault = { name: 'nothing', serves: true, isTold: false, strike: () => sleep(CALM_MS) };
    const { moved: lively } = await playOut(stage, calm, options, report, new Set());
    for (const fault of faults) {
      if (options.signal?.aborted) break;
      options.onProgress?.(fault.name);
      await playOut(stage, fault, options, report, lively);
    }
    return report;
  });

async function playOut(
  stage: Stage,
  fault: Fault,
  { seconds }: CheckOptions,
  report: Report,
  lively: ReadonlySet<string>,
): Promise<{ moved: Set<string> }> {
  const { balancer, topics, database, instances } = stage;
  const ledger = new Ledger();
  let isOver = false;
  const round = fault.name.replaceAll(' ', '-');
  const watch = new MetricsWatch(instances);
  const http = new HttpLoad(balancer, ledger, round, () => !fault.serves, () => isOver); // prettier-ignore
  const messages = new MessageLoad(topics, ledger, round, () => isOver);
  await sleep(CALM_MS);
  const since = Date.now();
  const isMade = await fault.strike(stage, seconds * 1000);
  await sleep(CALM_MS);
  isOver = true;
  await Promise.all([http.ended(), messages.ended()]);
  const left = await settled(stage);
  const moved = await watch.stop();
  const say = (what: string) => report.violations.push(`${fault.name}: ${what}`);
  if (isMade === false) report.leftOut.push(fault.name);
  if (left) {
    say(left);
    return { moved };
  }
  await messages.readReplies();
  const { lost, doubled, falselyRefused, other } = await compare(ledger, database, topics);
  const { failures } = ledger;
  const failed = fault.serves ? [...failures.values()].reduce((sum, n) => sum + n, 0) : 0;
  const metrics = [...moved].filter((series) => !lively.has(series));
  const lines = linesOf(instances.flatMap((instance) => instance.linesSince(since)));
  const kinds = { lost, 'done twice': doubled, 'said to be unchanged, and changed': falselyRefused, other };
  for (const [kind, found] of Object.entries(kinds))
    if (found.length > 0) say(`${kind}: ${found.length}: ${found.slice(0, TOLD).join('; ')}`);
  if (failed > 0) say(`failed: ${[...failures].map(([told, n]) => `${n} × ${told}`).join('; ')}`);
  if (fault.isTold && isMade !== false) {
    if (metrics.length === 0) say('no metric tells of it');
    if (lines.length === 0) say('no line of the log tells of it');
  }
  report.rows.push({
    fault: fault.name,
    requests: {
      done: ledger.count('HTTP', 'done'),
      refused: ledger.count('HTTP', 'refused'),
      unknown: ledger.count('HTTP', 'unknown'),
    },
    ...{ failed, metrics, lines, alerts: alertsFor(readAlerts(), metrics) },
    messages: ledger.count('message') + ledger.count('request by message'),
    ...{ lost: lost.length, doubled: doubled.length, falselyRefused: falselyRefused.length },
  });
  return { moved };
}

/** What was said, and how often, most often first. */
function linesOf(lines: readonly LogLine[]): string[] {
  const times = new Map<string, number>();
  for (const { level, msg } of lines) times.set(`${level}: ${msg}`, (times.get(`${level}: ${msg}`) ?? 0) + 1);
  return [...times].sort(([, a], [, b]) => b - a).map(([text, n]) => `${n} × ${text}`);
}
