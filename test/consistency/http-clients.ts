import { setTimeout as sleep } from 'node:timers/promises';
import { versionToRow } from '../../src/people/person.entity.js';
import type { Database } from './database.js';
import { type Change, differences, type Known, type Ledger, type Told } from './ledger.js';

/** What clients of HTTP were told. */
export interface HttpCounts {
  asked: number;
  done: number;
  refused: number;
  toldAgain: number;
  unknown: number;
}

export interface HttpClientSettings {
  /** Where the service listens. */
  url: string;
  database: Database;
  ledger: Ledger;
  counts: HttpCounts;
  violations: string[];
  random: () => number;
  isOver: () => boolean;
}

export interface Request {
  method: 'POST' | 'PATCH' | 'DELETE';
  path: string;
  body?: string;
  headers?: Record<string, string>;
}

interface Answer {
  told: Told;
  status: number;
  body: { id?: string; ids?: string[]; type?: string; detail?: string };
  version: string | undefined;
}

/** One thing that a client may do next. */
export type Operation = (client: HttpClient) => Promise<void>;
export interface Operations {
  creates: readonly Operation[];
  /** Of a person that the client has. */
  changes: readonly Operation[];
}

const ANSWER_MS = 90_000;
const PEOPLE_PER_CLIENT = 30;

/**
 * A client that writes people of its own, one request after the other, and obeys what it is told: it repeats what it is told to
 * repeat, and what is unknown only where that can do no harm. Notes what it was told in the ledger, and looks right away whether
 * it is true.
 */
export class HttpClient {
  private readonly mine: Known[] = [];

  constructor(private readonly settings: HttpClientSettings) {}

  async run({ creates, changes }: Operations): Promise<void> {
    const { random, isOver } = this.settings;
    while (!isOver()) {
      const isFull = this.mine.length >= PEOPLE_PER_CLIENT;
      const operations = this.mine.length === 0 ? creates : isFull ? changes : [...creates, ...changes];
      await operations[Math.floor(random() * operations.length)]!(this);
    }
  }

  /** Some person of this client. */
  pick(): Known {
    return this.mine[Math.floor(this.settings.random() * this.mine.length)]!;
  }

  /**
   * Creates one person, or as many as `rows` says.
   *
   * @param mayRepeatUnknown its id or its key makes it the same request
   */
  async create(
    name: string,
    request: Request,
    { rows = 1, data = null, mayRepeatUnknown = false }: { rows?: number; data?: Known['data']; mayRepeatUnknown?: boolean } = {}, // prettier-ignore
  ): Promise<void> {
    const change: Change = `INSERT ${name}`;
    const { told, body, version } = await this.ask(change, request, rows, mayRepeatUnknown);
    const id = body.id ?? body.ids?.[0];
    if (told !== 'done' || rows > 1 || id === undefined) return;
    await this.keep({ id, name, data, version });
  }

  /** @param expected the person as it is afterwards */
  async change(person: Known, expected: Omit<Known, 'version'>, request: Request): Promise<void> {
    this.forget(person);
    const { told, version } = await this.ask(`UPDATE ${expected.name}`, request);
    if (told === 'done') await this.keep({ ...expected, version });
    // Something that is not known may still come, and nothing can be told of the person any more.
    if (told === 'nothing') await this.keep(person);
  }

  async remove(person: Known, headers: Record<string, string> = {}): Promise<void> {
    this.forget(person);
    const { told } = await this.ask(`DELETE ${person.id}`, {
      ...{ method: 'DELETE', path: `/people/${person.id}`, headers },
    });
    if (told === 'nothing') await this.keep(person);
  }

  /** Asks for what has to be refused with `status`, and to change nothing. */
  async refused(change: Change, request: Request, status: number): Promise<void> {
    const answer = await this.ask(change, request);
    const isLegitimate = answer.status === status || answer.status === 503 || answer.told === 'unknown';
    if (!isLegitimate) this.complain(request, answer, `is not the ${status} that it should be`);
  }

  /** Until something is told for good, or the check is over. */
  private async ask(change: Change, request: Request, rows = 1, mayRepeatUnknown = false): Promise<Answer> {
    const { ledger, counts, isOver, random } = this.settings;
    let wasUnknown = false;
    for (;;) {
      const answer = await this.send(request);
      counts.asked++;
      if (answer.told === 'done') counts.done++;
      else if (answer.told === 'unknown') counts.unknown++;
      else if (answer.status === 503) counts.toldAgain++;
      else counts.refused++;
      wasUnknown ||= answer.told === 'unknown';
      // What an earlier request of the same has done is not this answer's.
      if (answer.told === 'nothing' && !wasUnknown) await this.assertNothing(change, request, answer);
      const repeats = answer.status === 503 || (answer.told === 'unknown' && mayRepeatUnknown);
      if (repeats && !isOver()) {
        await sleep(20 + random() * 80);
        continue;
      }
      const told = answer.told === 'done' ? 'done' : wasUnknown ? 'unknown' : 'nothing';
      if (wasUnknown && answer.told === 'nothing' && answer.status !== 503)
        this.complain(request, answer, 'follows an unknown outcome of the same');
      ledger.note(change, told, rows);
      return { ...answer, told };
    }
  }

  private async send({ method, path, body, headers }: Request): Promise<Answer> {
    let response: Response;
    let text: string;
    try {
      const signal = AbortSignal.timeout(ANSWER_MS);
      response = await fetch(`${this.settings.url}${path}`, {
        ...{ method, signal, ...(headers && { headers }), ...(body !== undefined && { body }) },
      });
      text = await response.text();
    } catch (error) {
      this.settings.violations.push(`${method} ${path} had no answer: ${String(error)}`);
      return { told: 'unknown', status: 0, body: {}, version: undefined };
    }
    const { ok, status } = response;
    const parsed = (text ? JSON.parse(text) : {}) as Answer['body'];
    const etag = response.headers.get('etag');
    const isUnknown = status === 500 && parsed.type?.endsWith('/transaction-outcome-unknown') === true;
    const answer: Answer = {
      ...{ told: ok ? 'done' : isUnknown ? 'unknown' : 'nothing', status, body: parsed },
      version: etag === null ? undefined : versionToRow(etag),
    };
    if (status >= 500 && status !== 503 && !isUnknown)
      this.complain({ method, path }, answer, 'is no answer');
    if (status === 503 && !response.headers.get('retry-after'))
      this.complain({ method, path }, answer, 'has no Retry-After');
    return answer;
  }

  private async assertNothing(change: Change, request: Request, answer: Answer): Promise<void> {
    const [row] = await this.settings.database.query<{ n: number }>(
      'SELECT count(*)::int AS n FROM consistency_audit WHERE change = $1',
      [change],
    );
    if (row!.n !== 0) this.complain(request, answer, `was told, and ${row!.n} rows were changed`);
  }

  /** After it was seen to be as it was told. */
  private async keep(person: Known): Promise<void> {
    const { ledger, database, violations } = this.settings;
    const found = await differences(person, database);
    if (found.length > 0) return void violations.push(...found);
    this.mine.push(person);
    ledger.people.set(person.id, person);
  }

  private forget(person: Known): void {
    this.mine.splice(this.mine.indexOf(person), 1);
    this.settings.ledger.people.delete(person.id);
  }

  private complain({ method, path }: Pick<Request, 'method' | 'path'>, answer: Answer, what: string): void {
    const { status, body } = answer;
    this.settings.violations.push(
      `${method} ${path}: ${status} ${body.type} "${body.detail}" ${what} (at ${new Date().toISOString()})`,
    );
  }
}
