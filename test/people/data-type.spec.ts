import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { Test } from '@nestjs/testing';
import { TypeOrmModule } from '@nestjs/typeorm';
import { VeryComplicatedData } from '../../examples/very-complicated-data.js';
import { JsonText, PeopleModule, PeopleService, StoredDataInvalidError } from '../../src/index.js';
import { createDatabase, type TestDatabase } from '../support/test-database.js';

const U64_MAX = 18446744073709551615n;
const U64 = 'must be a whole number from 0 to 18446744073709551615';
const OBJECT = 'must be an object';
const STRINGS = 'must have strings only for values';

describe('people whose data has a type', () => {
  let database: TestDatabase;
  let app: NestFastifyApplication;
  let people: PeopleService<VeryComplicatedData>;
  let url: string;

  beforeAll(async () => {
    database = await createDatabase();
    const module = await Test.createTestingModule({
      imports: [
        TypeOrmModule.forRoot({ type: 'postgres', url: database.url, autoLoadEntities: true }),
        PeopleModule.forRoot({ dataType: VeryComplicatedData, controllers: { messages: false } }),
      ],
    }).compile();
    app = module.createNestApplication<NestFastifyApplication>(new FastifyAdapter(), {
      rawBody: true,
      logger: false,
    });
    await app.listen(0, '127.0.0.1');
    url = await app.getUrl();
    people = app.get<PeopleService<VeryComplicatedData>>(PeopleService);
  });
  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const request = (path: string, init: RequestInit = {}) => fetch(`${url}${path}`, init);
  const send = (method: string, path: string, body: string, type = 'application/json') =>
    request(path, { method, body, headers: { 'content-type': type } });
  const count = async () => (await database.query(`SELECT count(*)::int AS n FROM people`))[0]!.n as number;

  function complicated(many_many_fields: unknown, dict: Record<string, unknown> | Map<string, string> = {}) {
    return { many_many_fields, dict } as VeryComplicatedData;
  }

  describe('reads it as instances of the type', () => {
    it('what HTTP stored, digit for digit', async () => {
      const data = `{"dict":{"second":"b","first":"a"},"many_many_fields":${U64_MAX}}`;
      const created = await send('POST', '/people', `{"name":"Ada","data":${data}}`);
      const text = await created.text();
      const { id } = JSON.parse(text);
      expect(text).toBe(`{"id":"${id}","name":"Ada","data":${data}}`);

      const person = await people.get(id);
      expect(person.data).toBeInstanceOf(VeryComplicatedData);
      expect(person.data?.many_many_fields).toBe(U64_MAX);
      expect(person.data?.dict).toEqual(new Map([['second', 'b'], ['first', 'a']])); // prettier-ignore
      expect(person.dataJson).toBe(data);
      expect(await (await request(`/people/${id}`)).text()).toBe(text);
    });

    it('what it was given itself, as an instance, a plain object, text or null', async () => {
      const instance = Object.assign(new VeryComplicatedData(), complicated(7n, new Map([['a', 'b']])));
      for (const data of [
        instance,
        complicated(7, { a: 'b' }),
        JsonText.of('{"many_many_fields":7,"dict":{"a":"b"}}'),
      ]) {
        const { id } = await people.create({ name: 'Grace', data });
        const person = await people.get(id);
        expect(person.data).toEqual(instance);
        expect(person.data).toBeInstanceOf(VeryComplicatedData);
        expect(person.dataJson).toBe('{"many_many_fields":7,"dict":{"a":"b"}}');
      }
      expect((await people.create({ name: 'Grace', data: null })).data).toBeNull();
      expect((await people.findByName('Grace')).items.map(({ data }) => data?.many_many_fields)).toEqual([7n, 7n, 7n, undefined]); // prettier-ignore
    });

    it.each(['0', '1', '9007199254740991', '9007199254740992', '10000000000000000', String(U64_MAX)])(
      'the u64 %s as a bigint',
      async (digits) => {
        const { id } = await people.create({ name: 'u64', data: complicated(BigInt(digits)) });
        expect((await people.get(id)).data?.many_many_fields).toBe(BigInt(digits));
        expect(await (await request(`/people/${id}`)).text()).toContain(`"many_many_fields":${digits},`);
      },
    );
  });

  describe('refuses what does not fit and names each field:', () => {
    it.each<[title: string, data: string, errors: [pointer: string, detail: string][]]>([
      ['-1', '{"many_many_fields":-1,"dict":{}}', [['many_many_fields', U64]]],
      ['2^64', '{"many_many_fields":18446744073709551616,"dict":{}}', [['many_many_fields', U64]]],
      ['1.5', '{"many_many_fields":1.5,"dict":{}}', [['many_many_fields', U64]]],
      ['1.0', '{"many_many_fields":1.0,"dict":{}}', [['many_many_fields', U64]]],
      ['1e3', '{"many_many_fields":1e3,"dict":{}}', [['many_many_fields', U64]]],
      ['-0', '{"many_many_fields":-0,"dict":{}}', [['many_many_fields', U64]]],
      ['1e400', '{"many_many_fields":1e400,"dict":{}}', [['many_many_fields', U64]]],
      ['a string of digits', '{"many_many_fields":"5","dict":{}}', [['many_many_fields', U64]]],
      ['null', '{"many_many_fields":null,"dict":{}}', [['many_many_fields', U64]]],
      ['no u64', '{"dict":{}}', [['many_many_fields', U64]]],
      ['a number in the dict', '{"many_many_fields":1,"dict":{"a":"b","c":5}}', [['dict', STRINGS]]],
      ['null in the dict', '{"many_many_fields":1,"dict":{"a":null}}', [['dict', STRINGS]]],
      ['an object in the dict', '{"many_many_fields":1,"dict":{"a":{}}}', [['dict', STRINGS]]],
      ['a dict that is an array', '{"many_many_fields":1,"dict":["a"]}', [['dict', OBJECT]]],
      ['a dict that is text', '{"many_many_fields":1,"dict":"a"}', [['dict', OBJECT]]],
      [
        'nothing at all',
        '{}',
        [
          ['many_many_fields', U64],
          ['dict', `${STRINGS}; ${OBJECT}`],
        ],
      ],
      ['a field more', '{"many_many_fields":1,"dict":{},"more":1}', [['more', 'is not a known field']]],
      [
        'a field `toString`',
        '{"many_many_fields":1,"dict":{},"toString":1}',
        [['toString', 'is not a possible key of typed data']],
      ],
      [
        '`constructor` in the dict',
        '{"many_many_fields":1,"dict":{"constructor":"x"}}',
        [['dict/constructor', 'is not a possible key of typed data']],
      ],
      [
        '`toString` in the dict',
        '{"many_many_fields":1,"dict":{"toString":"x"}}',
        [['dict/toString', 'is not a possible key of typed data']],
      ],
    ])('%s', async (_title, data, wrong) => {
      const before = await count();
      const errors = wrong.map(([pointer, detail]) => ({ pointer: `#/data/${pointer}`, detail }));
      const overHttp = await send('POST', '/people', `{"name":"Ada","data":${data}}`);
      const detail = `${errors.map((error) => `${error.pointer.slice(2)} ${error.detail}`).join('; ')}.`;
      const problem = { type: '/problems/invalid-input', title: 'Invalid input', status: 400, detail };
      expect(await overHttp.json()).toEqual({ ...problem, instance: '/people', errors });
      const typed = JsonText.of(data);
      await expect(people.create({ name: 'Ada', data: typed })).rejects.toMatchObject({
        message: detail,
        errors,
      });
      await expect(people.createMany([{ name: 'Ada', data: typed }])).rejects.toMatchObject({
        errors: errors.map((error) => ({ ...error, pointer: error.pointer.replace('#', '#/0') })),
      });
      expect(await count()).toBe(before);
    });

    it('`__proto__`, which the parser of a host without one of its own refuses over HTTP already', async () => {
      const data = '{"many_many_fields":1,"dict":{},"__proto__":{"many_many_fields":2}}';
      expect((await send('POST', '/people', `{"name":"Ada","data":${data}}`)).status).toBe(400);
      await expect(people.create({ name: 'Ada', data: JsonText.of(data) })).rejects.toMatchObject({
        errors: [{ pointer: '#/data/__proto__', detail: 'is not a possible key of typed data' }],
      });
    });

    it('a merge patch whose result does not fit, and a change', async () => {
      const { id } = await people.create({ name: 'Ada', data: complicated(1n) });
      for (const type of ['application/merge-patch+json', 'application/json']) {
        const answer = await send(
          'PATCH',
          `/people/${id}`,
          '{"data":{"dict":{"a":1},"many_many_fields":2}}',
          type,
        );
        expect(answer.status).toBe(400);
        expect(await answer.json()).toMatchObject({ errors: [{ pointer: '#/data/dict', detail: STRINGS }] });
      }
      expect((await people.get(id)).dataJson).toBe('{"many_many_fields":1,"dict":{}}');
      const merged = await send(
        'PATCH',
        `/people/${id}`,
        '{"data":{"dict":{"a":"1"}}}',
        'application/merge-patch+json',
      );
      expect(JSON.parse(await merged.text()).data).toEqual({ many_many_fields: 1, dict: { a: '1' } });
    });
  });

  describe('reports what is stored and does not fit', () => {
    const BAD = '01938c5e-7a1b-7c3d-9e2f-000000000bad';
    const GOOD = '01938c5e-7a1b-7c3d-9e2f-00000000900d';
    const errors = [{ pointer: '#/data/many_many_fields', detail: U64 }];
    const detail = `The stored data of the person ${BAD} does not fit what this service expects: ${errors[0]!.pointer} ${U64}`;
    const problem = {
      type: '/problems/stored-data-invalid',
      title: 'Stored data invalid',
      status: 500,
      detail,
      errors,
    };

    beforeEach(async () => {
      const insert = `INSERT INTO people (id, name, data) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET data = $3`;
      await database.query(insert, [BAD, 'Eve', '{"many_many_fields":"x","dict":{}}']);
      await database.query(insert, [GOOD, 'Bob', '{"many_many_fields":1,"dict":{}}']);
    });

    it.each([`/people/${BAD}`, '/people?name=Eve'])('at %s, with the id of the person', async (path) => {
      const answer = await request(path);
      expect(answer.status).toBe(500);
      expect(answer.headers.get('content-type')).toBe('application/problem+json; charset=utf-8');
      expect(await answer.json()).toEqual({ ...problem, instance: path });
    });

    it('to who asks for a stream', async () => {
      const answer = await request('/people?name=Eve', { headers: { accept: 'application/x-ndjson' } });
      expect(answer.status).toBe(500);
      expect(await answer.json()).toEqual({ ...problem, instance: '/people?name=Eve' });
    });

    it('to who injects the service', async () => {
      const error: unknown = await people.get(BAD).catch((caught: unknown) => caught);
      expect(error).toBeInstanceOf(StoredDataInvalidError);
      expect(error).toMatchObject({ id: BAD, message: detail, errors, retryable: false });
      await expect(people.findByName('Eve')).rejects.toBeInstanceOf(StoredDataInvalidError);
    });

    it('in an array, a string or a number too', async () => {
      const id = '01938c5e-7a1b-7c3d-9e2f-00000000a88a';
      for (const data of ['[]', '[{"many_many_fields":1,"dict":{}}]', '"x"', '5', '1.0', 'true']) {
        await database.query(`INSERT INTO people VALUES ($1, 'odd', $2) ON CONFLICT (id) DO UPDATE SET data = $2`, [id, data]); // prettier-ignore
        await expect(people.get(id)).rejects.toMatchObject({
          type: 'stored-data-invalid',
          errors: [{ pointer: '#/data', detail: 'must be a JSON object or null' }],
        });
      }
    });

    it('below the deepest level', async () => {
      const id = '01938c5e-7a1b-7c3d-9e2f-00000000dee9';
      const deep = `{"many_many_fields":1,"dict":${'['.repeat(300)}${']'.repeat(300)}}`;
      await database.query(`INSERT INTO people VALUES ($1, 'deep', $2)`, [id, deep]);
      await expect(people.get(id)).rejects.toMatchObject({
        type: 'stored-data-invalid',
        errors: [{ pointer: '#/data', detail: 'nested deeper than 200 levels' }],
      });
    });

    it('unless it only has white space around it', async () => {
      const id = '01938c5e-7a1b-7c3d-9e2f-00000000b1a4';
      await database.query(`INSERT INTO people VALUES ($1, 'white', $2)`, [
        id,
        '\n {"many_many_fields":1,"dict":{}} ',
      ]);
      expect((await people.get(id)).data?.many_many_fields).toBe(1n);
      await database.query(`UPDATE people SET data = ' null ' WHERE id = $1`, [id]);
      expect((await people.get(id)).data).toBeNull();
    });

    it('and leaves the others readable', async () => {
      const good = await request(`/people/${GOOD}`);
      expect(await good.text()).toBe(`{"id":"${GOOD}","name":"Bob","data":{"many_many_fields":1,"dict":{}}}`);
      expect((await people.findByName('Bob')).items).toHaveLength(1);
    });

    it('until it is put right', async () => {
      await send('PATCH', `/people/${BAD}`, '{"data":{"many_many_fields":1,"dict":{}}}');
      expect((await people.get(BAD)).data?.many_many_fields).toBe(1n);
    });
  });
});
