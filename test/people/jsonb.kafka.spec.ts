import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { REFUSED } from './jsonb.cases.js';

const peer = duringTests(() => new KafkaPeer());
const app = duringTests(() => startKafkaApp(peer));
beforeAll(async () => {
  await app.database.query('ALTER TABLE people ALTER data TYPE jsonb');
  // Refused by the server, which makes the service look what the column is now.
  expect((await app.send('POST', '/people', '{"name":"x","data":{"a":"\\u0000"}}')).status).toBe(400);
});

const ID = '01938c5e-7a1b-7c3d-9e2f-00000000ada0';

describe('messages where data is jsonb', () => {
  it('create, create again, update and get answer with the value that is stored', async () => {
    const json = `{"id":"${ID}","name":"Ada","data":{"b":18446744073709551615,"a":1e2,"a":1.50}}`;
    const value = `{"id":"${ID}","name":"Ada","data":{"a": 1.50, "b": 18446744073709551615}}`;
    for (const [topic, message] of [
      ['people.create', json],
      ['people.create', json],
      ['people.get', `{"id":"${ID}"}`],
    ] as const)
      expect((await peer.ask(topic, message)).value).toBe(value);
    const updated = await peer.ask('people.update', `{"id":"${ID}","data":{"z":1,"y":2}}`);
    expect(updated.value).toBe(`{"id":"${ID}","name":"Ada","data":{"y": 2, "z": 1}}`);
  });

  it('what it can not hold is refused, in the fields of the message', async () => {
    for (const [json, detail] of REFUSED.slice(0, 12)) {
      for (const [topic, message, pointer] of [
        ['people.create', `{"name":"Ada","data":${json}}`, '#/data'],
        ['people.create-many', `{"people":[{"name":"ok"},{"name":"Ada","data":${json}}]}`, '#/people/1/data'],
        ['people.update', `{"id":"${ID}","data":${json}}`, '#/data'],
      ] as const) {
        const { error } = await peer.ask(topic, message);
        expect(error).toMatchObject({
          code: 'INVALID_INPUT',
          errors: [{ pointer, detail: expect.stringMatching(detail) as string }],
        });
      }
    }
    expect((await app.request(`/people/${ID}`)).status).toBe(200);
  });
});
