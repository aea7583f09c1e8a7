import { setTimeout as sleep } from 'node:timers/promises';
import type { Call, Operation, Outcome } from './history.js';

/** What became of what was asked. */
export interface CallCounts {
  answered: number;
  /** Refused by the state of the person: missing, changed, taken. */
  refused: number;
  /** Told that nothing was done, and to come again. */
  toldAgain: number;
  unknown: number;
  people: number;
}

export interface ClientSettings {
  /** Where an instance listens that is up, by chance; undefined where none is. */
  instance: () => { name: string; url: string } | undefined;
  people: People;
  history: Operation[];
  counts: CallCounts;
  violations: string[];
  random: () => number;
  isOver: () => boolean;
  /** Seeds the fault that the check is there to find: now and then a client is shown what it had seen before its own write. */
  showsStale: boolean;
}

/** So many people are written and read at a time, by all clients, each for so many calls. */
const PEOPLE_AT_ONCE = 3;
const CALLS_PER_PERSON = 120;
const ANSWER_MS = 60_000;
const ETAG = /^"(.*)"$/;

/** The few people that everybody works on. One that has had its calls makes room for another. */
export class People {
  private readonly current: { id: string; calls: number }[] = [];

  constructor(
    private readonly random: () => number,
    private readonly counts: CallCounts,
  ) {}

  pick(): string {
    const place = Math.floor(this.random() * PEOPLE_AT_ONCE);
    let person = this.current[place];
    if (!person || person.calls >= CALLS_PER_PERSON) {
      this.counts.people++;
      person = this.current[place] = { id: crypto.randomUUID(), calls: 0 };
    }
    person.calls++;
    return person.id;
  }
}

/** What a client has last seen of a person. */
interface Seen {
  name: string;
  etag: string;
}

interface Answer {
  outcome: Outcome | 'nothing';
  seen?: Seen;
}

/** Asks one thing after the other of whichever instance, and notes when it asked, when it was answered, and what. */
export class Client {
  private readonly seen = new Map<string, Seen>();
  /** What it saw of a person before its own last write of it. */
  private readonly stale = new Map<string, Seen>();
  private written = 0;

  constructor(
    private readonly name: string,
    private readonly settings: ClientSettings,
  ) {}

  async run(): Promise<void> {
    const { isOver, instance, people } = this.settings;
    while (!isOver()) {
      const asked = instance();
      if (!asked) await sleep(20);
      else await this.ask(people.pick(), asked);
    }
  }

  private async ask(person: string, { name, url }: { name: string; url: string }): Promise<void> {
    const { history, counts, showsStale } = this.settings;
    const call = this.choose(person);
    const calledAt = performance.now();
    let { outcome, seen } = await this.send(url, person, call);
    const answeredAt = outcome === 'nothing' || outcome.is === 'unknown' ? Infinity : performance.now();
    const stale = this.stale.get(person);
    if (showsStale && stale && outcome !== 'nothing' && outcome.is === 'found')
      [outcome, seen] = [{ is: 'found', name: stale.name }, stale];
    this.remember(person, call, seen);
    if (outcome === 'nothing') return void counts.toldAgain++;
    if (outcome.is === 'unknown') counts.unknown++;
    else if (outcome.is === 'done' || outcome.is === 'found') counts.answered++;
    else counts.refused++;
    // A read that nobody answered tells nothing.
    if (outcome.is === 'unknown' && call.kind === 'get') return;
    history.push({ person, call, outcome, calledAt, answeredAt, client: `${this.name} of ${name}` });
  }

  private choose(person: string): Call {
    const chance = this.settings.random();
    if (chance < 0.45) return { kind: 'get' };
    const name = () => `${this.name}-${++this.written}`;
    if (chance < 0.6) return { kind: 'create', name: name() };
    const over = this.seen.get(person)?.name;
    if (chance < 0.75) return { kind: 'update', name: name(), over };
    if (chance < 0.9) return { kind: 'update', name: name() };
    return chance < 0.95 ? { kind: 'remove', over } : { kind: 'remove' };
  }

  private remember(person: string, call: Call, seen: Seen | undefined): void {
    const before = this.seen.get(person);
    if (call.kind === 'get' || !seen) this.stale.delete(person);
    else if (before) this.stale.set(person, before);
    if (seen) this.seen.set(person, seen);
  }

  private async send(url: string, person: string, call: Call): Promise<Answer> {
    let response: Response;
    let text: string;
    try {
      response = await fetch(`${url}/people${call.kind === 'create' ? '' : `/${person}`}`, {
        ...this.request(person, call),
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      text = await response.text();
    } catch {
      return { outcome: { is: 'unknown' } };
    }
    return this.read(call, response, text);
  }

  private request(person: string, call: Call): RequestInit {
    if (call.kind === 'get') return {};
    const over = 'over' in call && call.over !== undefined ? this.seen.get(person)?.etag : undefined;
    const headers = { 'content-type': 'application/json', ...(over !== undefined && { 'if-match': over }) };
    if (call.kind === 'remove') return { method: 'DELETE', headers };
    const { kind, name } = call;
    if (kind === 'update') return { method: 'PATCH', headers, body: JSON.stringify({ name }) };
    return { method: 'POST', headers, body: JSON.stringify({ id: person, name }) };
  }

  private read(call: Call, { status, headers }: Response, text: string): Answer {
    const body = (text ? JSON.parse(text) : {}) as { name?: string; type?: string; detail?: string };
    const etag = headers.get('etag');
    if (status === 200 || status === 201 || status === 204) {
      const name = body.name;
      const seen = name !== undefined && etag !== null && ETAG.test(etag) ? { name, etag } : undefined;
      if (call.kind === 'get' && name !== undefined)
        return { outcome: { is: 'found', name }, ...(seen && { seen }) };
      if ('name' in call && name !== call.name)
        this.settings.violations.push(`${call.kind} ${call.name} was answered with ${name}`);
      return { outcome: { is: 'done' }, ...(seen && { seen }) };
    }
    if (status === 404) return { outcome: { is: 'missing' } };
    if (status === 409) return { outcome: { is: 'taken' } };
    if (status === 412) return { outcome: { is: 'changed' } };
    if (status === 503) return { outcome: 'nothing' };
    if (status === 500 && body.type?.endsWith('/transaction-outcome-unknown'))
      return { outcome: { is: 'unknown' } };
    this.settings.violations.push(`${call.kind}: ${status} ${body.type} "${body.detail}" is no answer`);
    return { outcome: { is: 'unknown' } };
  }
}
