import { randomUUID } from 'node:crypto';
import type { PeopleApp } from './people-app.js';
import type { TestDatabase } from './test-database.js';

/** What makes a change: the statement itself where it stands alone, else COMMIT. */
export const WRITE = /COMMIT\0|people_(create|create_1000|update|remove)(_shared_\d+)?\0|INSERT INTO people/;

/** A write that is ready to be sent. */
export interface PreparedWrite {
  name: WriteName;
  send(): Promise<Response>;
  /** How often the change is in the database. */
  made(database: TestDatabase): Promise<number>;
}

interface Request {
  method: string;
  path: string;
  body?: string;
  headers?: Record<string, string>;
}

/** Makes a request that writes `label` as the name of new people, or of the person that is there, or removes that. */
type RequestOf = (label: string, there: { id: string; etag: string }) => Request;

const json = { 'content-type': 'application/json' };
const post = (path: string, body: unknown, headers = {}): Request => ({
  ...{ method: 'POST', path, body: JSON.stringify(body) },
  headers: { ...json, ...headers },
});
const key = () => ({ 'idempotency-key': randomUUID() });
const rows = (name: string, count: number) => Array.from({ length: count }, () => ({ name }));
const ndjson = (name: string): Request => ({
  ...{ method: 'POST', path: '/people/bulk', body: `${JSON.stringify({ name })}\n` },
  headers: { 'content-type': 'application/x-ndjson' },
});
const patch = (id: string, name: string, headers = {}): Request => ({
  ...post(`/people/${id}`, { name, data: { name } }, headers),
  method: 'PATCH',
});

/** Every kind of write that a client of HTTP can ask for. */
const WRITES = {
  'POST /people': (label) => post('/people', { name: label }),
  'POST /people with an id': (label) => post('/people', { id: randomUUID(), name: label }),
  'POST /people with an Idempotency-Key': (label) => post('/people', { name: label }, key()),
  'POST /people/bulk': (label) => post('/people/bulk', rows(label, 1)),
  'POST /people/bulk with an id': (label) => post('/people/bulk', [{ id: randomUUID(), name: label }]),
  'POST /people/bulk with an Idempotency-Key': (label) => post('/people/bulk', rows(label, 1), key()),
  'POST /people/bulk of 1,001 rows': (label) =>
    post('/people/bulk', [...rows(label, 1), ...rows(`filler of ${label}`, 1000)]),
  'POST /people/bulk of lines': (label) => ndjson(label),
  'PATCH /people/:id': (label, { id }) => patch(id, label),
  'PATCH /people/:id with If-Match': (label, { id, etag }) => patch(id, label, { 'if-match': etag }),
  'PATCH /people/:id of one field': (label, { id }) => ({
    ...post(`/people/${id}`, { name: label }),
    method: 'PATCH',
  }),
  'PATCH /people/:id with a merge patch': (label, { id }) =>
    patch(id, label, { 'content-type': 'application/merge-patch+json' }),
  'PATCH /people/:id with a merge patch and If-Match': (label, { id, etag }) =>
    patch(id, label, { 'content-type': 'application/merge-patch+json', 'if-match': etag }),
  'DELETE /people/:id': (_, { id }) => ({ method: 'DELETE', path: `/people/${id}` }),
  'DELETE /people/:id with If-Match': (_, { id, etag }) => ({
    ...{ method: 'DELETE', path: `/people/${id}` },
    headers: { 'if-match': etag },
  }),
} satisfies Record<string, RequestOf>;
export type WriteName = keyof typeof WRITES;
export const WRITE_NAMES = Object.keys(WRITES) as WriteName[];

let labels = 0;

/** With the person that it is about, where it is about one. */
export async function prepare(app: PeopleApp, name: WriteName): Promise<PreparedWrite> {
  const label = `${name} ${++labels}`;
  const { id, version } = await app.people.create({ name: `before ${label}` });
  const request: Request = WRITES[name](label, { id, etag: `"${version}"` });
  const { method, path, body, headers } = request;
  return {
    name,
    send: () =>
      app.request(path, { method, ...(body !== undefined && { body }), ...(headers && { headers }) }),
    made: async (database) => {
      const of = (column: string, value: string) =>
        database.query(`SELECT FROM people WHERE ${column} = $1`, [value]);
      return method === 'DELETE' ? 1 - (await of('id', id)).length : (await of('name', label)).length;
    },
  };
}

/**
 * Holds what was told against what is in the database.
 *
 * @returns what is wrong with it
 */
export async function judge(
  write: PreparedWrite,
  response: Response,
  database: TestDatabase,
): Promise<string[]> {
  const text = await response.text();
  const made = await write.made(database);
  const type = /"type":"[^"]*?([a-z-]+)"/.exec(text)?.[1];
  const isUnknown = response.status === 500 && type === 'transaction-outcome-unknown';
  const told = response.ok ? 1 : isUnknown ? made : 0;
  const isTrue = told === made && made <= 1 && !(isUnknown && /nothing was changed/i.test(text));
  return isTrue
    ? []
    : [`${write.name}: made ${made} times, and told ${response.status} ${text.slice(0, 200)}`];
}

/** Every kind of write, ready to be sent at once. */
export async function prepareAll(app: PeopleApp) {
  const writes = await Promise.all(WRITE_NAMES.map((name) => prepare(app, name)));
  return {
    send: () => Promise.all(writes.map((write) => write.send())),
    /** As `judge`, of all. */
    judge: async (responses: readonly Response[], database: TestDatabase) => {
      const judged = writes.map((write, index) => judge(write, responses[index]!, database));
      return (await Promise.all(judged)).flat();
    },
  };
}
