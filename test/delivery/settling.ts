import { setTimeout as sleep } from 'node:timers/promises';
import type { Flow } from './flow.js';
import type { Database } from './servers.js';
import type { Topics } from './topics.js';

export interface Settled {
  /** Requests that were told to come again. */
  askedAgain: number;
  violations: string[];
}

/** How long nothing may change while something is left. */
const STUCK_MS = 60_000;

/** Waits until all is handled and sent, and sends again the requests that are told to come again, until all are answered. */
export async function settle(
  { requests }: Flow,
  database: Database,
  topics: Topics,
  replyTopic: string,
): Promise<Settled> {
  const open = new Set(requests.keys());
  const settled: Settled = { askedAgain: 0, violations: [] };
  while (await untilHandled(database, topics, settled)) {
    const toldAgain = new Set<string>();
    for (const { headers } of await topics.readOn(replyTopic)) {
      const id = String(headers.kafka_correlationId);
      const error = headers['kafka_nest-err'];
      if (!error) open.delete(id);
      else if (isWorthAnother(String(error))) toldAgain.add(id);
      else settled.violations.push(`a request was answered with ${String(error)}`);
    }
    const again = [...open].filter((id) => toldAgain.has(id));
    for (const id of open) {
      if (toldAgain.has(id)) continue;
      settled.violations.push(`${id} was not answered`);
      open.delete(id);
    }
    if (again.length === 0) break;
    settled.askedAgain += again.length;
    await topics.send(again.map((id) => requests.get(id)!));
  }
  return settled;
}

const isWorthAnother = (error: string) => {
  const { code, retryable } = JSON.parse(error) as { code: string; retryable: boolean };
  return retryable || code === 'TRANSACTION_OUTCOME_UNKNOWN';
};

/** @returns false when it does not come to that */
async function untilHandled(database: Database, topics: Topics, { violations }: Settled): Promise<boolean> {
  let [last, since] = ['', Date.now()];
  for (;;) {
    const lag = await topics.lag();
    const [outbox] = await database.query<{ n: number }>('SELECT count(*)::int AS n FROM message_outbox');
    if (lag === 0 && outbox!.n === 0) return true;
    const now = `${lag} messages are not handled, ${outbox!.n} rows of the outbox not sent`;
    if (now !== last) [last, since] = [now, Date.now()];
    if (Date.now() - since > STUCK_MS) {
      violations.push(`nothing moves: ${now}`);
      return false;
    }
    await sleep(200);
  }
}
