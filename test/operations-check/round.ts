import { setTimeout as sleep } from 'node:timers/promises';
import { alertsFor, readAlerts } from './alerts.js';
import { compare } from './comparison.js';
import type { Fault } from './faults.js';
import { HttpLoad } from './http-load.js';
import type { LogLine } from './instances.js';
import { Ledger } from './ledger.js';
import { MessageLoad } from './message-load.js';
import { MetricsWatch } from './metrics-watch.js';
import type { Row } from './report.js';
import { settled } from './settling.js';
import type { Stage } from './stage.js';

/** How one fault went. */
export interface Played {
  /** undefined where what was asked for did not come to its end. */
  row: Row | undefined;
  /** False where the fault can't be made here. */
  isMade: boolean;
  /** All series that were not always the same. */
  moved: ReadonlySet<string>;
  violations: string[];
}

/** Before a fault, and behind it. */
export const CALM_MS = 1_500;
const TOLD = 5;

/**
 * Lets a fault happen under load, waits until all is well, and compares what was told with what is there.
 *
 * @param lively series that move also when all is well, and so tell of nothing
 */
export async function play(
  stage: Stage,
  fault: Fault,
  ms: number,
  lively: ReadonlySet<string>,
): Promise<Played> {
  const { balancer, topics, database, instances } = stage;
  const ledger = new Ledger();
  let isOver = false;
  const round = fault.name.replaceAll(' ', '-');
  const watch = new MetricsWatch(instances);
  const http = new HttpLoad(balancer, ledger, round, () => !fault.serves, () => isOver); // prettier-ignore
  const messages = new MessageLoad(topics, ledger, round, () => isOver);
  await sleep(CALM_MS);
  const since = Date.now();
  const isMade = (await fault.strike(stage, ms)) !== false;
  await sleep(CALM_MS);
  isOver = true;
  await Promise.all([http.ended(), messages.ended()]);
  const left = await settled(stage);
  const moved = await watch.stop();
  if (left) return { row: undefined, isMade, moved, violations: [left] };
  await messages.readReplies();
  const { lost, doubled, falselyRefused, other } = await compare(ledger, database, topics);
  const metrics = fault.isCalm ? [] : [...moved].filter((series) => !lively.has(series)).sort(byWorth);
  const rules = readAlerts();
  const row: Row = {
    fault: fault.name,
    requests: {
      done: ledger.count('HTTP', 'done'),
      refused: ledger.count('HTTP', 'refused'),
      unknown: ledger.count('HTTP', 'unknown'),
    },
    failed: fault.serves ? ledger.count('HTTP') - ledger.count('HTTP', 'done') : 0,
    messages: ledger.count('message') + ledger.count('request by message'),
    ...{ lost: lost.length, doubled: doubled.length, falselyRefused: falselyRefused.length },
    refusals: [...ledger.failures('HTTP'), ...ledger.failures('request by message')],
    metrics,
    alerts: alertsFor(rules, metrics),
    lines: linesOf(instances.flatMap((instance) => instance.linesSince(since))),
  };
  const violations: string[] = [];
  const kinds = { lost, 'done twice': doubled, 'said to be unchanged, and changed': falselyRefused, other };
  for (const [kind, found] of Object.entries(kinds))
    if (found.length > 0) violations.push(`${kind}: ${found.length}: ${found.slice(0, TOLD).join('; ')}`);
  if (row.failed > 0) violations.push(`failed: ${ledger.failures('HTTP').join('; ')}`);
  if (fault.isTold && isMade) {
    if (metrics.length === 0) violations.push('no metric tells of it');
    if (rules.length > 0 && row.alerts.length === 0) violations.push('no alert tells of it');
    if (row.lines.length === 0) violations.push('no line of the log tells of it');
  }
  return { row, isMade, moved, violations };
}

/** What the service says of itself, before what its clients were answered. */
const byWorth = (one: string, other: string): number =>
  Number(other.startsWith('people_')) - Number(one.startsWith('people_'));

/** What was said, and how often, most often first. */
function linesOf(lines: readonly LogLine[]): string[] {
  const times = new Map<string, number>();
  for (const { level, msg } of lines) times.set(`${level}: ${msg}`, (times.get(`${level}: ${msg}`) ?? 0) + 1);
  return [...times].sort(([, a], [, b]) => b - a).map(([text, n]) => `${n} × ${text}`);
}
