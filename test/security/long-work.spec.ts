import { setTimeout as sleep } from 'node:timers/promises';
import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';

/** Asking without a break would take the time of what is asked beside it. */
const ASK_EVERY_MS = 20;
const ID = '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e9f';
const MEBIBYTE = 1024 * 1024;
const JSON_TYPE = { 'content-type': 'application/json' };
const NDJSON_TYPE = { 'content-type': 'application/x-ndjson' };
const NAME = 'must be a non-empty string without NUL and without lone surrogates';
/** What a person and a body may be. */
const ELEMENT = 2 * MEBIBYTE + 1024;
/** As long as a body may be, and for shapes that cost as much a byte whatever their length. */
const [BODY, PART] = [16 * MEBIBYTE, 4 * MEBIBYTE];

const fill = (unit: string, bytes: number) => unit.repeat(Math.floor(bytes / unit.length));
const GOOD = `{"name":"good","data":{"text":"${'x'.repeat(170)}"}},`;
const MANY = Math.floor(BODY / GOOD.length) - 10;
const unknownKeys = Array.from({ length: 150_000 }, (_, n) => `"${n}x":0`).join();

const refused = (detail: string, ...errors: [pointer: string, detail: string][]) => [
  400,
  {
    type: '/problems/invalid-input',
    title: 'Invalid input',
    status: 400,
    detail,
    instance: '/people/bulk',
    ...(errors.length > 0 && { errors: errors.map(([pointer, text]) => ({ pointer, detail: text })) }),
  },
];
const element = (index: number, detail: string) =>
  refused(`Element ${index} ${detail}.`, [`#/${index}`, detail]);
const NONE = [201, { inserted: 0 }];
const MALFORMED = refused('The body must be a JSON array: malformed JSON.');

let before: unknown;
const table = () => app.database.query('SELECT count(*), min(xmin::text) FROM people');

const app = duringTests(() => startPeopleApp());
beforeAll(async () => {
  await app.people.create({ id: ID, name: 'Ada' });
  before = await table();
});
afterEach(async () => expect(await table()).toEqual(before));

/** Asks for Ada until `work` has ended, and resolves to what both were answered. */
async function besides<T>(work: Promise<T>): Promise<{ result: T; statuses: Set<number> }> {
  const statuses = new Set<number>();
  let isOver = false;
  const done = work.finally(() => (isOver = true));
  do {
    statuses.add((await app.request(`/people/${ID}`)).status);
    await sleep(ASK_EVERY_MS);
  } while (!isOver);
  return { result: await done, statuses };
}

describe('a large body is answered, and so is whoever asks meanwhile:', () => {
  it.each<[string, string, unknown, Record<string, string>]>([
    [
      'an array whose last person is bad',
      `[${fill(GOOD, MANY * GOOD.length)}{"name":""}]`,
      refused(`${MANY}/name ${NAME}.`, [`#/${MANY}/name`, NAME]),
      JSON_TYPE,
    ],
    ['an array that never closes', `[${fill(GOOD, PART).slice(0, -1)}`, MALFORMED, JSON_TYPE],
    [
      'brackets',
      fill('[', PART),
      refused('The body must be a JSON array: nested deeper than 200 levels.'),
      JSON_TYPE,
    ],
    [
      'braces',
      `[${fill('{"a":', PART - 1)}`,
      refused('The body must be a JSON array: nested deeper than 200 levels.'),
      JSON_TYPE,
    ],
    [
      'one text',
      `["${fill('x', PART - 4)}"]`,
      element(0, `must be at most ${ELEMENT} bytes long`),
      JSON_TYPE,
    ],
    [
      'one text that never closes',
      `["${fill('x', PART - 2)}`,
      element(0, `must be at most ${ELEMENT} bytes long`),
      JSON_TYPE,
    ],
    [
      'one number',
      `[${fill('9', PART - 2)}]`,
      element(0, `must be at most ${ELEMENT} bytes long`),
      JSON_TYPE,
    ],
    ['numbers', `[${fill('0,', PART - 3)}0]`, element(0, 'must be a JSON object'), JSON_TYPE],
    [
      'empty people',
      `[${fill('{},', PART - 4)}{}]`,
      refused(`0/name ${NAME}.`, ['#/0/name', NAME]),
      JSON_TYPE,
    ],
    ['commas', `[${fill(',', PART - 2)}]`, MALFORMED, JSON_TYPE],
    ['white space', fill(' ', PART), MALFORMED, JSON_TYPE],
    [
      'white space before an object',
      `${fill('\n', PART - 2)}{}`,
      refused('The body must be a JSON array.'),
      JSON_TYPE,
    ],
    ['white space in an array', `[${fill(' \n', PART - 2)}]`, NONE, JSON_TYPE],
    ['white space behind an array', `[]${fill('\t', PART - 2)}`, NONE, JSON_TYPE],
    [
      'one person as long as a body may be',
      `[{"name":"a","data":{"a":"${fill('x', BODY - 30)}"}}]`,
      element(0, `must be at most ${ELEMENT} bytes long`),
      JSON_TYPE,
    ],
    [
      'one key over and over',
      `[{${fill('"a":0,', 2 * MEBIBYTE)}"a":0}]`,
      refused('Element 0: the member "a" stands twice.', ['#/0', 'the member "a" stands twice']),
      JSON_TYPE,
    ],
    [
      '150,000 unknown keys of one person',
      `[{"name":"a",${unknownKeys}}]`,
      [
        400,
        expect.objectContaining({
          detail: expect.stringMatching(/^0\/0x is not a known field; .*; and 149980 more\.$/),
        }),
      ],
      JSON_TYPE,
    ],
    ['line feeds', fill('\n', BODY), NONE, NDJSON_TYPE],
    ['lines of white space', fill(' \r\n', PART), NONE, NDJSON_TYPE],
    [
      'a line that never ends',
      fill('x', PART),
      refused('Line 1: The line is longer than 1048576 bytes.'),
      NDJSON_TYPE,
    ],
    [
      'lines of which the last is bad',
      `${fill('\n{"name":"good"}', PART / 4)}\n{"name":""}`,
      [400, expect.objectContaining({ detail: expect.stringMatching(/^Line \d+: name must be/) })],
      NDJSON_TYPE,
    ],
  ])('%s', async (_title, body, answer, headers) => {
    // prettier-ignore
    const sent = app.request('/people/bulk', { method: 'POST', body, headers });
    const { result, statuses } = await besides(sent.then(async (one) => [one.status, await one.json()]));
    expect(result).toEqual(answer);
    expect([...statuses]).toEqual([200]);
  });
});

describe('others have their turn while', () => {
  /** How often the event loop came round until `work` ended. */
  async function roundsDuring(work: Promise<unknown>): Promise<number> {
    let rounds = 0;
    let isOver = false;
    const count = () => {
      rounds++;
      if (!isOver) setImmediate(count);
    };
    setImmediate(count);
    await work.then(
      () => (isOver = true),
      () => (isOver = true),
    );
    return rounds;
  }

  it('many people of the program are checked, of whom the last is bad', async () => {
    const people = [...Array<{ name: string }>(100_000).fill({ name: 'good' }), { name: '' }];
    const creating = app.people.createMany(people);
    creating.catch(() => undefined);
    expect(await roundsDuring(creating)).toBeGreaterThan(10);
    await expect(creating).rejects.toMatchObject({ errors: [{ pointer: '#/100000/name', detail: NAME }] });
  });

  it('data of a mebibyte is merged', async () => {
    const { id } = await app.people.create({ name: 'large', data: {} });
    const send = (data: string) =>
      app.send('PATCH', `/people/${id}`, `{"data":${data}}`, {
        'content-type': 'application/merge-patch+json',
      });
    expect((await send(`{"a":[${fill('{},', MEBIBYTE - 100)}0]}`)).status).toBe(200);
    const { result, statuses } = await besides(send(`{"b":[${fill('0,', 1000)}0]}`));
    expect([result.status, ...statuses]).toEqual([400, 200]);
    await app.people.remove(id);
  });
});
