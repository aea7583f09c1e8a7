import { ArgumentsHost, HttpException } from '@nestjs/common';
import { InvalidInputError } from '../../src/errors/application-error.js';
import {
  describeFailure,
  MessageErrorFilter,
  toMessageError,
  toProblem,
} from '../../src/errors/error-responses.js';
import { shown } from '../../src/errors/shown.js';
import { JsonLogger } from '../../src/operations/json-logger.js';
import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';

const ID = '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f';
const JSON_TYPE = { 'content-type': 'application/json' };
const NDJSON_TYPE = { 'content-type': 'application/x-ndjson' };
const LONG = 'k'.repeat(1_000_000);
/** A text of 1,000,000 characters as an answer shows it. */
const CUT = `${'k'.repeat(199)}…`;
const unknownKeys = (count: number) => Array.from({ length: count }, (_, n) => `"${n}x":0`).join();

describe('a text from outside', () => {
  it('is shown as it is up to 200 characters, and is cut to 200 beyond', () => {
    expect(shown('k'.repeat(200))).toBe('k'.repeat(200));
    expect(shown('k'.repeat(201))).toBe(CUT);
  });

  it('is not cut within a pair of surrogates', () => {
    for (const before of [197, 198, 199]) {
      const cut = shown(`${'k'.repeat(before)}${'😀'.repeat(100)}`);
      expect(cut.isWellFormed()).toBe(true);
      expect(cut.length).toBeLessThanOrEqual(200);
    }
  });
});

describe('an answer over HTTP names at most 20 problems, and 200 characters of each text, for', () => {
  let before: unknown;
  const table = () => app.database.query(`SELECT id, name, data::text, xmin::text FROM people`);

  const app = duringTests(() => startPeopleApp());
  beforeAll(async () => {
    await app.people.create({ id: ID, name: 'Ada' });
    before = await table();
  });
  afterEach(async () => expect(await table()).toEqual(before));

  const unknown = (pointer: string, count: number) =>
    Array.from({ length: count }, (_, n) => ({
      pointer: `${pointer}/${n}x`,
      detail: 'is not a known field',
    }));

  it.each([
    [
      'a body of 80,000 unknown keys',
      'POST',
      '/people',
      `{"name":"a",${unknownKeys(80_000)}}`,
      JSON_TYPE,
      unknown('#', 20),
      / 19x is not a known field; and 79980 more\.$/,
    ],
    [
      '21 unknown keys',
      'POST',
      '/people',
      `{"name":"a",${unknownKeys(21)}}`,
      JSON_TYPE,
      unknown('#', 20),
      /; and 1 more\.$/,
    ],
    [
      '20 unknown keys',
      'POST',
      '/people',
      `{"name":"a",${unknownKeys(20)}}`,
      JSON_TYPE,
      unknown('#', 20),
      / 19x is not a known field\.$/,
    ],
    [
      'a change of 80,000 unknown keys',
      'PATCH',
      `/people/${ID}`,
      `{${unknownKeys(80_000)}}`,
      JSON_TYPE,
      unknown('#', 20),
      /; and 79980 more\.$/,
    ],
    [
      'one of many people, of 80,000 unknown keys',
      'POST',
      '/people/bulk',
      `[{"name":"a",${unknownKeys(80_000)}}]`,
      JSON_TYPE,
      unknown('#/0', 20),
      /; and 79980 more\.$/,
    ],
    [
      'a line of 80,000 unknown keys',
      'POST',
      '/people/bulk',
      `{"name":"a",${unknownKeys(80_000)}}\n`,
      NDJSON_TYPE,
      unknown('#', 20),
      /^Line 1: .*; and 79980 more\.$/,
    ],
    [
      'an unknown key of 1,000,000 characters',
      'POST',
      '/people',
      `{"name":"a","${LONG}":0}`,
      JSON_TYPE,
      [{ pointer: shown(`#/${LONG}`), detail: 'is not a known field' }],
      /^k+… is not a known field\.$/,
    ],
    [
      'a key of 500,000 characters that stands twice',
      'POST',
      '/people',
      `{"${LONG.slice(500_000)}":0,"${LONG.slice(500_000)}":0}`,
      JSON_TYPE,
      undefined,
      new RegExp(`^The body: the member "${CUT}" stands twice\\.$`),
    ],
  ])('%s', async (_title, method, path, body, headers, errors, detail) => {
    // prettier-ignore
    const [response, bystander] = await Promise.all([
      app.request(path, { method, body, headers }),
      app.request(`/people/${ID}`),
    ]);
    const text = await response.text();
    expect([response.status, bystander.status]).toEqual([400, 200]);
    expect(text.length).toBeLessThan(5000);
    expect(JSON.parse(text)).toEqual({
      type: '/problems/invalid-input',
      title: 'Invalid input',
      status: 400,
      detail: expect.stringMatching(detail),
      instance: path,
      ...(errors && { errors }),
    });
  });

  it.each([
    ['an unknown path of 10,000 characters', (long: string) => `/${long}`, 404],
    ['an id of 10,000 characters', (long: string) => `/people/${long}`, 414],
    ['a query of 10,000 characters', (long: string) => `/nowhere?${long}`, 404],
    ['a malformed path of 10,000 characters', (long: string) => `/%ZZ${long}`, 400],
  ])('%s', async (_title, pathWith, status) => {
    const response = await app.request(pathWith(LONG.slice(0, 10_000)));
    const problem = (await response.json()) as { detail: string; instance: string };
    expect(problem.instance).toBe(shown(pathWith(LONG)));
    expect(problem.detail.length).toBeLessThan(300);
    expect(problem.detail).not.toContain('k'.repeat(201));
    expect(response.status).toBe(status);
  });
});

describe('an error that holds more than an answer names', () => {
  const fields = Array.from({ length: 1000 }, (_, n) => ({ pointer: `#/${n}${LONG}`, detail: LONG }));

  it('keeps 20 problems, and counts the others', () => {
    const error = new InvalidInputError('bad', fields);
    expect([error.errors?.length, error.fields?.length, error.more]).toEqual([20, 20, 980]);
    expect(error.errors?.[7]).toEqual({ pointer: shown(fields[7]!.pointer), detail: CUT });
  });

  it('is a bounded problem, a bounded reply and a bounded dead letter', () => {
    for (const error of [
      new InvalidInputError(LONG, fields),
      new HttpException({ message: fields.map(({ detail }) => detail) }, 400),
      new HttpException(LONG, 400),
    ]) {
      const problem = JSON.stringify(toProblem(describeFailure(error), `/${LONG}`));
      const reply = JSON.stringify(toMessageError(error));
      expect(problem.length).toBeLessThan(15_000);
      expect(reply.length).toBeLessThan(15_000);
    }
  });

  it('is thrown by the filter of messages as a bounded reply', () => {
    const host = { switchToRpc: () => ({ getContext: () => ({}) }) } as ArgumentsHost;
    let thrown: unknown;
    new MessageErrorFilter()
      .catch(new InvalidInputError(LONG, fields), host)
      .subscribe({ error: (error) => (thrown = error) });
    expect(JSON.stringify(thrown).length).toBeLessThan(15_000);
  });
});

describe('a line of the log is bounded for', () => {
  const lineOf = (write: (logger: JsonLogger) => void) => {
    const lines: string[] = [];
    write(new JsonLogger('trace', { write: (line) => void lines.push(line) }));
    return lines.join('');
  };
  const failure = (cause?: unknown) => new Error(LONG, { cause });

  it.each<[string, (logger: JsonLogger) => void]>([
    ['a long message', (logger) => logger.log(LONG)],
    ['long fields', (logger) => logger.warn({ msg: LONG, topic: LONG, keys: [LONG, { [LONG]: LONG }] })],
    ['many fields', (logger) => logger.warn({ msg: 'x', list: Array(1_000_000).fill('x') })],
    ['a long error', (logger) => logger.error(failure())],
    ['a long error and its causes', (logger) => logger.error({ msg: 'x', err: failure(failure(failure())) })],
    ['what was thrown and is no error', (logger) => logger.error({ msg: 'x', err: LONG })],
    ['bytes', (logger) => logger.error({ msg: 'x', key: Buffer.alloc(1_000_000) })],
  ])('%s', (_title, write) => {
    const line = lineOf(write);
    expect(line.length).toBeLessThan(30_000);
    expect(JSON.parse(line)).toMatchObject({ level: expect.any(String) });
  });

  it('and still tells where an error with a long message arose', () => {
    expect(lineOf((logger) => logger.error(failure()))).toContain('bounded-problems.spec');
  });
});
