import { Agent, request } from 'node:http';
import { v7 as uuidv7 } from 'uuid';
import { type Family, parseExposition, valueOf } from '../operations/exposition.js';
import { duringTests } from '../support/during-tests.js';
import { ServiceHome } from '../support/service-process.js';
import { createDatabase } from '../support/test-database.js';

const REQUESTS = 8000;
const AT_ONCE = 16;
/** Some live long enough to be taken for old: 60 to 400. Where something held on to what was over, it was 700 to 3500. */
const BYTES_KEPT = 600;
const PEOPLE = 200_000;
/** 6; it was 29, and with it 100 MB of five million people. */
const BYTES_KEPT_OF_A_PERSON = 15;
const ID = uuidv7();

describe('what a request has used is free at the next young garbage collection, and waits for no full one:', () => {
  const home = duringTests(() => {
    const made = new ServiceHome();
    return { start: made.start.bind(made), drop: () => made.remove() };
  });
  const database = duringTests(() => createDatabase());
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });
  let http: string;
  let management: string;
  beforeAll(async () => {
    await database.query(`INSERT INTO people (id, name) VALUES ($1, 'Ada')`, [ID]);
    const service = home.start({ DATABASE_URL: database.url, KAFKA: 'off', LOG_LEVEL: 'warn' });
    ({ http, management = http } = await service.services());
  });
  afterAll(() => agent.destroy());

  const send = (method: string, path: string, body?: string) =>
    new Promise<number>((resolve, reject) => {
      const headers = body === undefined ? {} : { 'content-type': 'application/json' };
      const sent = request(`${http}${path}`, { method, agent, headers }, (response) => {
        response.resume().once('end', () => resolve(response.statusCode!));
      });
      sent.once('error', reject).end(body);
    });
  const figures = async (): Promise<Map<string, Family>> =>
    parseExposition(await (await fetch(`${management}/metrics`)).text());
  const oldBytes = (families: Map<string, Family>) =>
    valueOf(families, 'nodejs_heap_space_size_used_bytes', { space: 'old' })!;
  const fullCollections = (families: Map<string, Family>) =>
    valueOf(families, 'nodejs_gc_duration_seconds_count', { kind: 'major' }) ?? 0;

  async function sendAll(one: () => Promise<number>, status: number): Promise<void> {
    let left = REQUESTS;
    const sender = async () => {
      while (left-- > 0) expect(await one()).toBe(status);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, sender));
  }

  /** By how much memory that only a full collection frees has grown with each of so many, while there was none. */
  async function keptOfEach(all: () => Promise<void>, many: number): Promise<number> {
    let before = await figures();
    for (let windows = 0; windows < 10; windows++) {
      await all();
      const after = await figures();
      if (fullCollections(after) === fullCollections(before))
        return (oldBytes(after) - oldBytes(before)) / many;
      before = after;
    }
    throw new Error('Each time there was a full garbage collection.');
  }

  it.each<[string, () => Promise<number>, number]>([
    ['get', () => send('GET', `/people/${ID}`), 200],
    ['create', () => send('POST', '/people', '{"name":"Ada","data":{"many":[1,2,3]}}'), 201],
    ['patch', () => send('PATCH', `/people/${ID}`, '{"name":"Grace"}'), 200],
  ])('of a %s', async (_title, one, status) => {
    // Code is compiled meanwhile, which is kept.
    for (let times = 0; times < 3; times++) await sendAll(one, status);
    expect(await keptOfEach(() => sendAll(one, status), REQUESTS)).toBeLessThan(BYTES_KEPT);
  });

  it('of a person that is imported', async () => {
    const importAll = async () => {
      const headers = { 'content-type': 'application/x-ndjson' };
      const response = await fetch(`${http}/people/bulk`, {
        method: 'POST',
        headers,
        body: '{"name":"Ada","data":{"many":[1,2,3]}}\n'.repeat(PEOPLE),
      });
      expect(await response.json()).toEqual({ inserted: PEOPLE });
    };
    await importAll();
    expect(await keptOfEach(importAll, PEOPLE)).toBeLessThan(BYTES_KEPT_OF_A_PERSON);
  });
});
