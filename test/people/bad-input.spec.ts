import { duringTests } from '../support/during-tests.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';
import {
  ADA,
  ADA_JSON,
  addresses,
  type BadRequest,
  bodies,
  fields,
  many,
  nested,
  type Problem,
} from './bad-input.cases.js';

describe('bad input over HTTP changes nothing and is answered with what is wrong:', () => {
  let before: unknown;

  const app = duringTests(() => startPeopleApp());
  beforeAll(async () => {
    expect((await app.send('POST', '/people', ADA_JSON)).status).toBe(201);
  });
  beforeEach(async () => (before = await table()));
  afterEach(async () => expect(await table()).toEqual(before));

  const table = () =>
    app.database.query(
      `SELECT count(*), md5(string_agg(people::text || xmin::text, '|' ORDER BY id)) FROM people`,
    );

  async function isAnswered({ path, ...init }: BadRequest, problem: Problem) {
    const response = await app.request(path, init);
    const body: unknown = await response.json();
    expect(body).toEqual({ ...problem, instance: path });
    expect(response.status).toBe(problem.status);
    expect(response.headers.get('content-type')).toBe('application/problem+json; charset=utf-8');
  }

  describe('a body with', () => {
    it.each(bodies)('%s', async (_title, request, problem) => isAnswered(request, problem));
  });

  describe('a person with', () => {
    it.each(fields)('%s', async (_title, request, problem) => isAnswered(request, problem));
  });

  describe('an address or a condition:', () => {
    it.each(addresses)('%s', async (_title, request, problem) => isAnswered(request, problem));
  });

  describe('many people with', () => {
    it.each(many)('%s', async (_title, request, problem) => isAnswered(request, problem));
  });

  it.each([
    ['DELETE', '/people', 'GET, HEAD, POST'],
    ['PUT', '/people', 'GET, HEAD, POST'],
    ['PUT', `/people/${ADA}`, 'DELETE, GET, HEAD, PATCH'],
    ['POST', `/people/${ADA}`, 'DELETE, GET, HEAD, PATCH'],
    ['POST', '/health/live', 'GET, HEAD'],
  ])('%s %s names the methods there are', async (method, path, allowed) => {
    const response = await app.request(path, { method });
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')?.split(', ').sort().join(', ')).toBe(allowed);
    expect(response.headers.get('content-type')).toBe('application/problem+json; charset=utf-8');
    expect(await response.json()).toEqual({
      type: '/problems/method-not-allowed',
      title: 'Method Not Allowed',
      status: 405,
      detail: `${method} is not a method of ${path}.`,
      instance: path,
    });
  });
});

describe('at the bounds of what is accepted over HTTP', () => {
  let app: PeopleApp;
  beforeAll(async () => (app = await startPeopleApp()));
  afterAll(() => app.close());

  it('data whose body has 200 levels is stored', async () => {
    const created = await app.send('POST', '/people', `{"name":"deep","data":${nested(199)}}`);
    expect(created.status).toBe(201);
    expect(await created.text()).toContain(`"data":${nested(199)}`);
  });

  it('a name of a million characters is stored and found', async () => {
    const name = 'a'.repeat(1_000_000);
    expect((await app.send('POST', '/people', JSON.stringify({ name }))).status).toBe(201);
    expect((await app.people.findByName(name)).items).toHaveLength(1);
  });

  it('an Idempotency-Key of 255 characters is taken', async () => {
    const key = { 'idempotency-key': 'k'.repeat(255) };
    expect((await app.send('POST', '/people', '{"name":"once"}', key)).status).toBe(201);
    expect((await app.send('POST', '/people', '{"name":"once"}', key)).status).toBe(200);
  });
});
