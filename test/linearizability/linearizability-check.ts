import { setTimeout as sleep } from 'node:timers/promises';
import { startEmbeddedPostgres } from '../../src/dev/embedded-postgres.js';
import { openDirectly } from '../consistency/database.js';
import { killBackends, loseAtRandom, type LossCounts, noLosses } from '../consistency/losses.js';
import { withClosers } from '../support/closers.js';
import { startLossyProxy } from '../support/lossy-proxy.js';
import { randomOf } from '../support/random.js';
import { violationsOf } from './checker.js';
import { type CallCounts, Client, People } from './clients.js';
import { type Operation, withLostAnswers } from './history.js';
import { Instance } from './instances.js';

export interface CheckOptions {
  seed: number;
  /** How long there are calls, in seconds. */
  seconds: number;
  /** Where the check's own PostgreSQL lives; removed by the caller. */
  directory: string;
  /** Processes of the service on the one database. */
  instances: number;
  /** Whether instances are killed, sessions ended and answers lost meanwhile. */
  hasFaults: boolean;
  /** See `ClientSettings`. */
  showsStale?: boolean;
  /** Variables for the instances. */
  environment?: Record<string, string>;
  /** Ends the calls early; the history is judged all the same. */
  signal?: AbortSignal;
}

/** What happened; `violations` has to be empty. */
export interface Counts {
  calls: CallCounts;
  /** Calls that overlapped another one of the same person. */
  overlapping: number;
  instancesKilled: number;
  backendsKilled: number;
  lost: LossCounts;
  violations: string[];
}

const CLIENTS = 16;

/**
 * Clients create, read, change and remove the same few people through several processes of the service at once. Then each person's
 * history is held against what a single register could have answered: a read that begins after a write was answered sees it, or a later one.
 */
export const checkLinearizability = (options: CheckOptions): Promise<Counts> =>
  withClosers((closers) => check(options, closers));

async function check(options: CheckOptions, closers: (() => Promise<unknown>)[]): Promise<Counts> {
  const { seed, seconds, directory, hasFaults, showsStale = false, environment, signal } = options;
  const random = randomOf(seed);
  const violations: string[] = [];
  const server = await startEmbeddedPostgres({ directory });
  closers.push(() => server.stop());
  const database = openDirectly(server.url);
  closers.push(() => database.close());
  const proxy = await startLossyProxy(server.url);
  closers.push(() => proxy.close());
  const settings = { LOG_LEVEL: 'silent', KAFKA: 'off', ...environment, DATABASE_URL: proxy.url };
  const instances = Array.from(
    { length: options.instances },
    (_, n) => new Instance(`instance ${n + 1}`, settings, (violation) => violations.push(violation)),
  );
  for (const instance of instances) closers.push(() => instance.close());
  for (const instance of instances) await instance.untilUp();

  const history: Operation[] = [];
  const calls: CallCounts = { answered: 0, refused: 0, toldAgain: 0, unknown: 0, people: 0 };
  const lost = noLosses();
  const counts: Counts = {
    ...{ calls, overlapping: 0, instancesKilled: 0, backendsKilled: 0, lost, violations },
  };
  const end = Date.now() + seconds * 1000;
  const isOver = () => Date.now() > end || signal?.aborted === true;
  const people = new People(random, calls);
  const instance = () => {
    const up = instances.flatMap(({ name, url }) => (url === undefined ? [] : [{ name, url }]));
    return up[Math.floor(random() * up.length)];
  };
  const shared = { instance, people, history, counts: calls, violations, random, isOver, showsStale };
  const stopLosing = hasFaults ? loseAtRandom(proxy, random, lost) : () => Promise.resolve();
  await Promise.all([
    ...Array.from({ length: CLIENTS }, (_, n) => new Client(`client ${n + 1}`, shared).run()),
    ...(hasFaults
      ? [
          killInstances(instances, random, counts, isOver),
          killBackends(database, counts, isOver, () => 50 + random() * 300),
        ]
      : []),
    // Who waits for an answer gets one.
    sleep(seconds * 1000).then(stopLosing),
  ]);
  counts.overlapping = overlappingOf(history);
  violations.push(...violationsOf(hasFaults ? withLostAnswers(history) : history));
  return counts;
}

/** The next one once the last serves again, so that somebody always does. */
async function killInstances(
  instances: readonly Instance[],
  random: () => number,
  counts: Counts,
  isOver: () => boolean,
): Promise<void> {
  while (!isOver()) {
    await sleep(200 + random() * 800);
    if (isOver()) return;
    const victim = instances[Math.floor(random() * instances.length)]!;
    victim.kill();
    counts.instancesKilled++;
    while (victim.url === undefined && !isOver()) await sleep(50);
  }
}

function overlappingOf(history: readonly Operation[]): number {
  const latest = new Map<string, number>();
  let overlapping = 0;
  for (const { person, calledAt, answeredAt } of history.toSorted((a, b) => a.calledAt - b.calledAt)) {
    const until = latest.get(person) ?? -Infinity;
    if (calledAt < until) overlapping++;
    if (answeredAt !== Infinity) latest.set(person, Math.max(until, answeredAt));
  }
  return overlapping;
}
