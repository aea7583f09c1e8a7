import fc from 'fast-check';
import { JsonText, parseJson, stringifyJson } from '../../src/index.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { dataText, RUN, surprises } from './json-survives.arbitraries.js';

const U64_MAX = '18446744073709551615';
const TOGETHER = 20;

describe('the JSON of a person survives between the doors', () => {
  const peer = duringTests(() => new KafkaPeer());
  const app = duringTests(() => startKafkaApp(peer));

  /** The value of a reply that is no error. */
  async function ask(topic: string, value: string): Promise<string> {
    const reply = await peer.ask(topic, value);
    expect(reply.error).toBeUndefined();
    return reply.value!;
  }
  const overHttp = async (id: string) => (await app.request(`/people/${id}`)).text();

  const doors: Record<string, (data: string) => Promise<string>> = {
    HTTP: async (data) => {
      const created = await app.send('POST', '/people', `{"name":"p","data":${data}}`);
      expect(created.status).toBe(201);
      return created.headers.get('location')!.slice('/people/'.length);
    },
    Kafka: async (data) => idOf(await ask('people.create', `{"name":"p","data":${data}}`)),
    'Kafka with many': async (data) => {
      const reply = await ask(
        'people.create-many',
        `{"ids":true,"people":[{"name":"q"},{"data":${data},"name":"p"}]}`,
      );
      return JSON.parse(reply).ids[1];
    },
    'a change by Kafka': async (data) => {
      const { id } = await app.people.create({ name: 'q', data: { old: 1 } });
      await ask('people.update', `{"id":"${id}","name":"p","data":${data}}`);
      return id;
    },
    injection: async (data) => (await app.people.create({ name: 'p', data: JsonText.of(data) })).id,
  };

  describe.each(Object.entries(doors))('in by %s', (_door, store) => {
    const isTheSameEverywhere = async (data: string) => {
      const id = await store(data);
      const person = `{"id":"${id}","name":"p","data":${data}}`;
      expect(await ask('people.get', JSON.stringify({ id }))).toBe(person);
      expect(await overHttp(id)).toBe(person);
      expect((await app.people.get(id)).dataJson).toBe(data);
    };

    // @trap big integers and `__proto__`
    it('the u64 of the article and all that other parsers change come out of each the same', async () => {
      await Promise.all(surprises.map(isTheSameEverywhere));
      const { data } = await app.people.get(await store(`{"many_many_fields":${U64_MAX}}`));
      expect(data).toEqual({ many_many_fields: BigInt(U64_MAX) });
    });

    it('any JSON comes out of each byte for byte', async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(dataText, { minLength: TOGETHER, maxLength: TOGETHER }), async (all) => {
          await Promise.all(all.map(isTheSameEverywhere));
        }),
        { ...RUN, numRuns: 2 },
      );
    });
  });

  it('from Kafka to injection, and as values from there to HTTP and Kafka', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(dataText, { minLength: TOGETHER, maxLength: TOGETHER }), async (all) => {
        await Promise.all(
          all.map(async (data) => {
            const person = await app.people.get(await doors.Kafka!(data));
            // As Maps: a plain object puts keys that look like array indexes first.
            const values = parseJson(person.dataJson!, 'map');
            const again = await app.people.create({ name: 'p', data: values as never });
            const expected = `{"id":"${again.id}","name":"p","data":${stringifyJson(values)}}`;
            expect(await overHttp(again.id)).toBe(expected);
            expect(await ask('people.get', JSON.stringify({ id: again.id }))).toBe(expected);
            expect(again.data).toEqual(person.data);
          }),
        );
      }),
      { ...RUN, numRuns: 2 },
    );
  });

  it('in the pages of people.find-by-name', async () => {
    await app.people.createMany(surprises.map((data) => ({ name: 'page', data: JsonText.of(data) })));
    const page = await ask('people.find-by-name', '{"name":"page"}');
    expect(page).toBe(await (await app.request('/people?name=page')).text());
    for (const data of surprises) expect(page).toContain(`,"name":"page","data":${data}}`);
  });
});

const idOf = (person: string) => person.slice(7, 43);
