import { setTimeout as sleep } from 'node:timers/promises';
import type { Stage } from './stage.js';

/** How long nothing may get on while something is left. */
const STUCK_MS = 90_000;

/** Until every instance is ready, every message handled and every event sent. @returns what is left where that does not come */
export async function settled({ balancer, database, topics }: Stage): Promise<string | undefined> {
  let [last, since] = ['', Date.now()];
  for (;;) {
    const lag = await topics.lag().catch(() => undefined);
    const [outbox] = await database.query<{ n: number }>('SELECT count(*)::int AS n FROM message_outbox');
    const isReady = balancer.areAllReady;
    if (isReady && lag === 0 && outbox!.n === 0) return undefined;
    const left = `${isReady ? '' : 'not all instances are ready, '}${lag} messages are not handled, ${outbox!.n} events not sent`;
    if (left !== last) [last, since] = [left, Date.now()];
    if (Date.now() - since > STUCK_MS) return left;
    await sleep(200);
  }
}
