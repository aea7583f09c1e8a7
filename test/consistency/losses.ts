import { setTimeout as sleep } from 'node:timers/promises';
import { type Fate, fatalError, type HeldAnswer, type LossyProxy } from '../support/lossy-proxy.js';
import type { Database } from './database.js';

/** What stands on the wire when something is lost. */
const KINDS = {
  COMMIT: /COMMIT\0/,
  statement: /people_(create|update|remove)(_shared_\d+)?\0/,
  batch: /people_create_1000\0|INSERT INTO people/,
  import: /COPY people/,
} as const;
type Kind = keyof typeof KINDS;

/** What was lost, of each kind. */
export interface LossCounts {
  requests: Record<Kind, number>;
  answers: Record<Kind, number>;
  unnoticed: number;
  toldByPooler: number;
  refusals: number;
  hangs: number;
}

export const noLosses = (): LossCounts => ({
  requests: { COMMIT: 0, statement: 0, batch: 0, import: 0 },
  answers: { COMMIT: 0, statement: 0, batch: 0, import: 0 },
  ...{ unnoticed: 0, toldByPooler: 0, refusals: 0, hangs: 0 },
});

/** How likely each is lost; imports and batches are rare. */
const CHANCE: Record<Kind, number> = { COMMIT: 0.04, statement: 0.06, batch: 0.08, import: 0.25 };
/** The words of poolers, and of a server, for a session that ends. */
const WORDS = [
  fatalError('08P01', 'server conn crashed?'),
  fatalError('08P01', 'query timeout'),
  fatalError('58000', 'error reading from server'),
  fatalError('57P01', 'terminating connection due to administrator command'),
];

/**
 * Loses requests and answers on `proxy` at random, and lets outages follow now and then, in which new connections are refused or
 * hang.
 *
 * @returns to be called when nothing is to be lost any more; resolves when the last outage is over
 */
export function loseAtRandom(
  proxy: LossyProxy,
  random: () => number,
  counts: LossCounts,
): () => Promise<void> {
  let isOver = false;
  let outage: Promise<void> | undefined;
  const mayFollow = () => {
    const chance = random();
    if (outage || isOver || chance > 0.12) return;
    const isHang = chance < 0.03;
    counts[isHang ? 'hangs' : 'refusals']++;
    outage = endOutage(isHang ? proxy.hang() : proxy.refuse());
  };
  const endOutage = async (begun: void | Promise<void>) => {
    await begun;
    await sleep(30 + random() * 300);
    await proxy.recover();
    outage = undefined;
    if (!isOver) proxy.onRequest = decide;
  };
  const lose = (kind: Kind) => (answer: HeldAnswer) => {
    counts.answers[kind]++;
    if (random() < 0.5) answer.cut();
    else {
      counts.toldByPooler++;
      answer.tell(WORDS[Math.floor(random() * WORDS.length)]!);
    }
    mayFollow();
  };
  const decide = (piece: Buffer): Fate => {
    const kind = kindOf(piece);
    if (!kind || random() > CHANCE[kind]) return 'pass';
    const chance = random();
    if (chance > 0.4) return lose(kind);
    counts.requests[kind]++;
    if (chance > 0.04) return 'unsent';
    counts.unnoticed++;
    return 'unnoticed';
  };
  proxy.onRequest = decide;
  return async () => {
    isOver = true;
    await outage;
    await proxy.recover();
  };
}

function kindOf(piece: Buffer): Kind | undefined {
  const text = piece.toString('latin1');
  return (Object.keys(KINDS) as Kind[]).find((kind) => KINDS[kind].test(text));
}

/**
 * Ends the session of a random backend of the service now and then.
 *
 * @param pauseMs how long until the next
 */
export async function killBackends(
  database: Database,
  counts: { backendsKilled: number },
  isOver: () => boolean,
  pauseMs: () => number,
): Promise<void> {
  while (!isOver()) {
    await sleep(pauseMs());
    const killed = await database.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND application_name = 'nestjs-people' ORDER BY random() LIMIT 1`,
    );
    counts.backendsKilled += killed.length;
  }
}
