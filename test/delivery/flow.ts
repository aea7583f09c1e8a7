import type { IHeaders, Message } from 'kafkajs';

/** What is sent in a round, and what must have become of it. */
export interface Flow {
  messages: Message[];
  /** Each person's changes in order: `created 0`, `updated 1`, …, `deleted`. */
  lives: Map<string, string[]>;
  /** Of messages, each once. */
  ids: Set<string>;
  /** What nobody can handle, by id, with the headers that it has. */
  poison: Map<string, IHeaders>;
  /** By correlation id. */
  requests: Map<string, Message>;
  duplicates: number;
  /** Updates that are slow, or fail at first, see `hazards.mjs`. */
  hazards: number;
  /** Messages with headers that nobody here has asked for. */
  nastyHeaders: number;
}

export const KEYS = 500;
/** The part of the messages that is for the scaling. */
export const SCALING = 0.15;
/** Parts of the messages. */
const [DUPLICATES, POISON, HOPELESS, REQUESTS, DELETES] = [0.05, 0.005, 0.003, 0.03, 0.002];
/** A part of the updates. */
const HAZARDS = 0.02;
const HAZARD_KINDS = ['slow', 'refused', 'conflict', 'terminated', 'lost'];
/** A part of the messages. */
const NASTY = 0.05;
/** Of what becomes a dead letter, whose headers are compared. */
const NASTY_POISON = 0.5;
const NOTHING_NASTY: IHeaders = {};
/** As Kafka takes them; kafkajs sends what its types don't tell of. */
const NASTY_HEADERS = [
  { trace: ['1', '2', '1'] },
  { trace: [null, '1'] },
  { trace: null },
  { '': 'nameless' },
  { constructor: 'x', toString: null, hasOwnProperty: 'y' },
  { ['__proto__']: 'x', prototype: null },
  { trace: Buffer.of(0xff, 0, 0xfe) },
] as unknown as IHeaders[];
/** A duplicate comes at most this many messages behind its first. */
const DISTANCE = 300;

/** The same for the same `random`. */
export function flowOf(count: number, random: () => number, replyTopic: string): Flow {
  const flow: Flow = {
    messages: [],
    lives: new Map(),
    ids: new Set(),
    poison: new Map(),
    requests: new Map(),
    duplicates: 0,
    hazards: 0,
    nastyHeaders: 0,
  };
  const { messages, lives, ids } = flow;
  const people = Array.from({ length: KEYS }, () => uuidOf(random));
  const add = (key: string, operation: string, value: string, nastiness = NASTY) => {
    const id = uuidOf(random);
    ids.add(id);
    const nasty =
      random() < nastiness ? NASTY_HEADERS[Math.floor(random() * NASTY_HEADERS.length)]! : NOTHING_NASTY;
    if (nasty !== NOTHING_NASTY) flow.nastyHeaders++;
    const message = {
      key,
      value,
      headers: { ...nasty, 'people-operation': operation, 'message-id': id },
    };
    messages.push(message);
    return { id, message };
  };
  const change = (key: string, operation: string, what: string, more: object = {}) => {
    lives.set(key, [...(lives.get(key) ?? []), what]);
    return add(key, operation, JSON.stringify({ id: key, ...more }));
  };
  const addPoison = (key: string, operation: string, value: string) => {
    const { id, message } = add(key, operation, value, NASTY_POISON);
    flow.poison.set(id, message.headers);
  };
  while (messages.length < count) {
    const chance = random();
    const index = Math.floor(random() * people.length);
    const id = people[index]!;
    const age = lives.get(id)?.length ?? 0;
    if (chance < DUPLICATES && messages.length > 0) {
      const back = Math.min(messages.length, DISTANCE);
      messages.push(messages[messages.length - 1 - Math.floor(random() * back)]!);
      flow.duplicates++;
    } else if (chance < DUPLICATES + POISON) {
      const [operation, value] = poisonOf(id, random);
      addPoison(id, operation, value);
    } else if (chance < DUPLICATES + POISON + HOPELESS && messages.length < count * (1 - SCALING)) {
      // Not while it is measured how long a partition stands still: it does, until such a message has been tried often enough.
      // What its handler calls is never there, see `hazards.mjs`.
      addPoison(id, 'update', JSON.stringify({ id, name: '0-hopeless' }));
    } else if (chance < DUPLICATES + POISON + HOPELESS + REQUESTS) {
      // Of its own key: what a request that is told to come again would be overtaken by, else.
      const { message } = change(uuidOf(random), 'create', 'created 0', { name: '0' });
      const correlationId = uuidOf(random);
      Object.assign(message.headers, {
        kafka_correlationId: correlationId,
        kafka_replyTopic: replyTopic,
      });
      flow.requests.set(correlationId, message);
    } else if (age === 0) {
      change(id, 'create', 'created 0', { name: '0' });
    } else if (chance > 1 - DELETES) {
      change(id, 'delete', 'deleted');
      people[index] = uuidOf(random);
    } else {
      const isHazard = random() < HAZARDS;
      if (isHazard) flow.hazards++;
      const name = isHazard
        ? `${age}-${HAZARD_KINDS[Math.floor(random() * HAZARD_KINDS.length)]!}`
        : String(age);
      change(id, 'update', `updated ${name}`, { name });
    }
  }
  return flow;
}

function poisonOf(id: string, random: () => number): [operation: string, value: string] {
  const kinds: [string, string][] = [
    ['update', '{"id":'],
    ['update', JSON.stringify({ id, name: 7 })],
    ['marry', JSON.stringify({ id })],
  ];
  return kinds[Math.floor(random() * kinds.length)]!;
}

function uuidOf(random: () => number): string {
  const bytes = Buffer.from(Array.from({ length: 16 }, () => Math.floor(random() * 256)));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
