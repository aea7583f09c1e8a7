import type { Database } from '../delivery/servers.js';
import { EVENTS, type Topics } from '../delivery/topics.js';
import type { Ledger } from './ledger.js';

/** What is wrong with what was told, by kind. */
export interface Compared {
  /** Told that it is done, and it is not there; or an event of it is not. */
  lost: string[];
  /** Done more than once, or told by more than one event. */
  doubled: string[];
  /** Told that nothing was changed, and it was. */
  falselyRefused: string[];
  /** Anything else. */
  other: string[];
}

/** Holds all that was asked for against what the database has written down of each change, and what events tell of it. */
export async function compare(ledger: Ledger, database: Database, topics: Topics): Promise<Compared> {
  const compared: Compared = { lost: [], doubled: [], falselyRefused: [], other: [...ledger.violations] };
  const rows = await database.query<{ change: string; times: number }>(
    'SELECT change, count(*)::int AS times FROM delivery_audit GROUP BY change',
  );
  await database.query('TRUNCATE delivery_audit');
  const done = new Map(rows.map(({ change, times }) => [change, times]));
  const events = await eventsByChange(topics);
  for (const { by, change, outcome, told = '' } of ledger.asked) {
    if (change === undefined) continue;
    const times = done.get(change) ?? 0;
    if (outcome === 'done' && times === 0) compared.lost.push(`${by}: ${change}`);
    if (outcome === 'refused' && times > 0) compared.falselyRefused.push(`${by}: ${change}: ${told}`);
  }
  for (const [change, times] of done) {
    if (times > 1) compared.doubled.push(`${change}, ${times} times`);
    const told = events.get(change)?.size ?? 0;
    if (told === 0) compared.lost.push(`the event of: ${change}`);
    if (told > times) compared.doubled.push(`the event of: ${change}, ${told} of them`);
  }
  for (const change of events.keys())
    if (!done.has(change)) compared.other.push(`an event of what is not there: ${change}`);
  const letters = await database.query<{ code: string; message: string }>(
    'DELETE FROM message_dead_letter RETURNING code, message',
  );
  for (const { code, message } of letters) compared.other.push(`a dead letter: ${code} ${message}`);
  return compared;
}

/** The ids of the events that tell of a change. */
async function eventsByChange(topics: Topics): Promise<Map<string, Set<string>>> {
  const events = new Map<string, Set<string>>();
  for (const { value, headers } of await topics.readOn(EVENTS)) {
    const { name } = JSON.parse(value) as { name: string };
    const change = `${String(headers.ce_type).replace('person.', '')} ${name}`;
    events.set(change, (events.get(change) ?? new Set()).add(String(headers.ce_id)));
  }
  return events;
}
