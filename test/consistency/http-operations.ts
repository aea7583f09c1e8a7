import type { Operation, Operations, Request } from './http-clients.js';

const json = { 'content-type': 'application/json' };
const newName = () => crypto.randomUUID();
const post = (path: string, body: unknown, headers = {}): Request => ({
  ...{ method: 'POST', path, body: JSON.stringify(body), headers: { ...json, ...headers } },
});
const lines = (people: readonly object[]): Request => ({
  ...{ method: 'POST', path: '/people/bulk', headers: { 'content-type': 'application/x-ndjson' } },
  body: people.map((person) => `${JSON.stringify(person)}\n`).join(''),
});
const patch = (id: string, body: object, headers = {}): Request => ({
  ...post(`/people/${id}`, body, headers),
  method: 'PATCH',
});
const key = () => ({ 'idempotency-key': crypto.randomUUID() });
const ifMatch = (version: string | undefined): Record<string, string> =>
  version === undefined ? {} : { 'if-match': `"${version.replace(/[(,)]/g, '.').slice(0, -1)}"` };
const many = (name: string, count: number) => Array.from({ length: count }, () => ({ name }));

const creates: Operation[] = [
  (client) => {
    const [name, data] = [newName(), { a: 1 }];
    return client.create(name, post('/people', { name, data }), { data });
  },
  (client) => {
    const name = newName();
    const request = post('/people', { id: crypto.randomUUID(), name });
    return client.create(name, request, { mayRepeatUnknown: true });
  },
  (client) => {
    const name = newName();
    return client.create(name, post('/people', { name }, key()), { mayRepeatUnknown: true });
  },
  (client) => {
    const name = newName();
    return client.create(name, post('/people/bulk?ids=true', [{ name }]));
  },
  (client) => {
    const name = newName();
    return client.create(name, post('/people/bulk', many(name, 7)), { rows: 7 });
  },
  (client) => {
    const name = newName();
    return client.create(name, post('/people/bulk', many(name, 1001)), { rows: 1001 });
  },
  (client) => {
    const name = newName();
    const request = post('/people/bulk', many(name, 3), key());
    return client.create(name, request, { rows: 3, mayRepeatUnknown: true });
  },
  (client) => {
    const name = newName();
    return client.create(name, lines(many(name, 500)), { rows: 500 });
  },
  (client) => {
    const name = newName();
    return client.refused(`INSERT ${name}`, lines([...many(name, 50), { name: 7 }]), 400);
  },
];

const changes: Operation[] = [
  (client) => {
    const [person, name] = [client.pick(), newName()];
    return client.change(person, { ...person, name }, patch(person.id, { name }));
  },
  (client) => {
    const [person, name, data] = [client.pick(), newName(), { b: 2 }];
    const request = patch(person.id, { name, data }, ifMatch(person.version));
    return client.change(person, { ...person, name, data }, request);
  },
  (client) => {
    const [person, name] = [client.pick(), newName()];
    const request = patch(
      person.id,
      { name, data: { [name]: 1 } },
      { 'content-type': 'application/merge-patch+json' },
    );
    const data = { ...person.data, [name]: 1 };
    return client.change(person, { ...person, name, data }, request);
  },
  (client) => client.remove(client.pick()),
  (client) => {
    const person = client.pick();
    return client.remove(person, ifMatch(person.version));
  },
  (client) => {
    const [{ id }, name] = [client.pick(), newName()];
    return client.refused(`INSERT ${name}`, post('/people', { id, name }), 409);
  },
  (client) => {
    const [{ id }, name] = [client.pick(), newName()];
    return client.refused(`INSERT ${name}`, post('/people/bulk', [...many(name, 2), { id, name }]), 409);
  },
  (client) => {
    const [{ id }, name] = [client.pick(), newName()];
    return client.refused(`UPDATE ${name}`, patch(id, { name }, { 'if-match': '"1.1.1"' }), 412);
  },
  (client) => {
    const name = newName();
    return client.refused(`UPDATE ${name}`, patch(crypto.randomUUID(), { name }), 404);
  },
];

/** Every kind of write that HTTP knows, and what it has to refuse. */
export const OPERATIONS: Operations = { creates, changes };
