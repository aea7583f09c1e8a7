import type { IHeaders } from 'kafkajs';
import type { Flow } from './flow.js';
import type { Database } from './servers.js';
import { DEAD_LETTERS, EVENTS, type Received, type Topics } from './topics.js';

export interface Compared {
  eventsSentAgain: number;
  violations: string[];
}

/** At most this many of a kind are told. */
const TOLD = 5;

/**
 * Holds what is there at the end of a round against what its messages should have led to.
 *
 * @param handledBefore messages of earlier rounds, each once
 */
export async function compare(
  flow: Flow,
  handledBefore: number,
  database: Database,
  topics: Topics,
): Promise<Compared> {
  const violations: string[] = [];
  const tell = (found: string[]) => {
    violations.push(...found.slice(0, TOLD));
    if (found.length > TOLD) violations.push(`and ${found.length - TOLD} more like this: ${found[TOLD]}`);
  };
  tell(await effectsOf(flow, database));
  tell(await inboxOf(flow, handledBefore, database));
  tell(await deadLettersOf(flow, database, await topics.readOn(DEAD_LETTERS)));
  const events = await topics.readOn(EVENTS);
  const { told, again } = firstOccurrences(events);
  tell(differences('the events of', flow.lives, told));
  return { eventsSentAgain: again, violations };
}

/** Every change once and in order, as the database itself saw it. */
async function effectsOf({ lives }: Flow, database: Database): Promise<string[]> {
  const rows = await database.query<{ person: string; change: string }>(
    'SELECT person, change FROM delivery_audit ORDER BY seq',
  );
  await database.query('TRUNCATE delivery_audit');
  const changes = new Map<string, string[]>();
  for (const { person, change } of rows) changes.set(person, [...(changes.get(person) ?? []), change]);
  const found = differences('the changes of', lives, changes);
  const people = await database.query<{ id: string; name: string }>(
    'SELECT id, name FROM people WHERE id = ANY ($1::uuid[])',
    [[...lives.keys()]],
  );
  const names = new Map(people.map(({ id, name }) => [id, name]));
  for (const [id, life] of lives) {
    const name = life.at(-1) === 'deleted' ? undefined : life.at(-1)!.split(' ')[1];
    if (names.get(id) !== name) found.push(`${id} is ${names.get(id)}, not ${name}`);
  }
  return found;
}

async function inboxOf({ ids }: Flow, before: number, database: Database): Promise<string[]> {
  const rows = await database.query<{ message_id: string }>(
    'SELECT message_id FROM message_inbox WHERE message_id = ANY ($1)',
    [[...ids]],
  );
  const [all] = await database.query<{ n: number }>('SELECT count(*)::int AS n FROM message_inbox');
  if (rows.length === ids.size && all!.n === before + ids.size) return [];
  return [`the inbox has ${rows.length} of ${ids.size} messages; in all ${all!.n}, not ${before + ids.size}`];
}

async function deadLettersOf({ poison }: Flow, database: Database, sent: Received[]): Promise<string[]> {
  const rows = await database.query<{ message_id: string; code: string; message: string }>(
    'DELETE FROM message_dead_letter RETURNING message_id, code, message',
  );
  const found = rows
    .filter(({ message_id }) => !poison.has(message_id))
    .map(({ message_id, code, message }) => `${message_id} is dead: ${code} ${message}`);
  const kept = new Set(rows.map(({ message_id }) => message_id));
  const told = new Set(sent.map(({ headers }) => String(headers['message-id'])));
  for (const id of poison.keys()) {
    if (!kept.has(id)) found.push(`${id} is no dead letter`);
    if (!told.has(id)) found.push(`${id} is not on ${DEAD_LETTERS}`);
  }
  for (const id of told) if (!poison.has(id)) found.push(`${id} is on ${DEAD_LETTERS}`);
  for (const { headers } of sent) {
    const [id, asSent] = [String(headers['message-id']), poison.get(String(headers['message-id']))];
    if (asSent && !hasAll(headers, asSent)) found.push(`${id} is on ${DEAD_LETTERS} with other headers`);
  }
  if (rows.length !== kept.size) found.push(`${rows.length - kept.size} dead letters stand twice`);
  return found;
}

/** Those that it was sent with are there as they were; of the others nothing is said. */
const hasAll = (found: IHeaders, sent: IHeaders) =>
  Object.entries(sent).every(
    ([name, value]) => Object.hasOwn(found, name) && plain(found[name]) === plain(value),
  );

/** kafkajs puts what every object has of such a name before the values of a header. */
const plain = (values: IHeaders[string] | null) =>
  JSON.stringify(
    [values ?? null]
      .flat()
      .filter((each) => each === null || typeof each === 'string' || Buffer.isBuffer(each))
      .map((each) => (each === null ? null : Buffer.from(each).toString('hex'))),
  );

/** By key, the events as they came first. */
function firstOccurrences(events: Received[]): { told: Map<string, string[]>; again: number } {
  const seen = new Set<string>();
  const told = new Map<string, string[]>();
  for (const { key, value, headers } of events) {
    const id = String(headers.ce_id);
    if (seen.has(id)) continue;
    seen.add(id);
    const { name } = JSON.parse(value) as { name?: string };
    const event = [String(headers.ce_type).replace('person.', ''), name].filter(Boolean).join(' ');
    told.set(key, [...(told.get(key) ?? []), event]);
  }
  return { told, again: events.length - seen.size };
}

function differences(what: string, expected: Map<string, string[]>, found: Map<string, string[]>): string[] {
  const keys = new Set([...expected.keys(), ...found.keys()]);
  return [...keys].flatMap((key) => {
    const [should, are] = [expected.get(key) ?? [], found.get(key) ?? []].map((each) => each.join(', '));
    return should === are ? [] : [`${what} ${key} should be ${should}; they are ${are}`];
  });
}
