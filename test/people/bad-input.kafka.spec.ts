import type { Message } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, type Reply, startKafkaApp } from '../support/kafka.js';
import { ADA, ADA_JSON, DATA, NAME, nested, TOO_DEEP, UNKNOWN, UNKNOWN_ID, UUID } from './bad-input.cases.js';

type Topic = 'create' | 'create-many' | 'get' | 'find-by-name' | 'update' | 'delete';
type MessageError = NonNullable<Reply['error']>;
type Case = [title: string, topic: Topic, value: Message['value'], error: MessageError];

const refused = (message: string): MessageError => ({ code: 'INVALID_INPUT', message, retryable: false });
const refusedAt = (message: string, pointer: string, detail: string): MessageError => ({
  ...refused(message),
  errors: [{ pointer, detail }],
});
const field = (pointer: string, detail: string) =>
  refusedAt(`${pointer.slice(2)} ${detail}.`, pointer, detail);

const NO_VALUE = refused('The message has no value; a JSON object was expected.');
const MALFORMED = refused('The message: malformed JSON.');
const NO_OBJECT = refused('The message must be a JSON object.');
const IF_MATCH = field('#/ifMatch', 'must be a version, or an array of versions');
const PEOPLE = 'must be an array';
const LIMIT = 'must not be greater than 1000; must not be less than 1; must be an integer number';
const missing = {
  code: 'PERSON_NOT_FOUND',
  message: `No person has the id ${UNKNOWN_ID}.`,
  retryable: false,
};
const changed = {
  code: 'PERSON_CHANGED',
  message: `The person ${ADA} is not the version that was asked for; nothing was changed. Read it again.`,
  retryable: false,
};
const conflict = {
  code: 'PERSON_CONFLICT',
  message: `A person with the id ${ADA} exists already and differs from the one given; nothing was changed.`,
  retryable: false,
};

const cases: Case[] = [
  ['a null value', 'create', null, NO_VALUE],
  ['a null value to delete', 'delete', null, NO_VALUE],
  ['an empty value', 'create', Buffer.alloc(0), NO_VALUE],
  ['text that is no JSON', 'create', 'Ada', MALFORMED],
  ['JSON that is cut off', 'update', `{"id":"${ADA}"`, MALFORMED],
  [
    'bytes that begin with NUL, as a schema registry writes them',
    'get',
    Buffer.from([0, 0, 0, 0, 1, 2]),
    MALFORMED,
  ],
  ['invalid UTF-8', 'create', Buffer.from([0x7b, 0xff, 0x7d]), refused('The message is not valid UTF-8.')],
  ['an array', 'create', '[{"name":"Ada"}]', NO_OBJECT],
  ['a string', 'get', `"${ADA}"`, NO_OBJECT],
  ['a number', 'get', '5', NO_OBJECT],
  ['the word null', 'find-by-name', 'null', NO_OBJECT],
  [
    'a member twice',
    'create',
    '{"name":"a","name":"b"}',
    refused('The message: the member "name" stands twice.'),
  ],
  ['201 levels', 'create', `{"name":"Ada","data":${nested(200)}}`, refused(`The message: ${TOO_DEEP}.`)],
  ['no name', 'create', '{}', field('#/name', NAME)],
  ['NUL in the name', 'create', '{"name":"\\u0000"}', field('#/name', NAME)],
  ['a lone surrogate in the name', 'create', '{"name":"\\ud800"}', field('#/name', NAME)],
  ['an id that is no uuid', 'create', '{"id":"x","name":"Ada"}', field('#/id', UUID)],
  ['an unknown field', 'create', '{"name":"Ada","nick":1}', field('#/nick', UNKNOWN)],
  ['a field `__proto__`', 'create', '{"name":"Ada","__proto__":{}}', field('#/__proto__', UNKNOWN)],
  ['data that is an array', 'create', '{"name":"Ada","data":[]}', field('#/data', DATA)],
  ['data that is a string', 'create', '{"name":"Ada","data":"{}"}', field('#/data', DATA)],
  ['the id of another person', 'create', `{"id":"${ADA}","name":"Eve"}`, conflict],
  ['no people', 'create-many', '{}', field('#/people', PEOPLE)],
  [
    'people that are null',
    'create-many',
    '{"people":null}',
    refusedAt('People must be an array.', '#/people', PEOPLE),
  ],
  [
    'people that are an object',
    'create-many',
    '{"people":{}}',
    refusedAt('People must be an array.', '#/people', PEOPLE),
  ],
  ['a question for ids that is none', 'create-many', '{"people":[],"ids":1}', field('#/ids', 'must be true or false')], // prettier-ignore
  ['people and more', 'create-many', '{"people":[],"x":1}', field('#/x', UNKNOWN)],
  ['one bad person of two', 'create-many', '{"people":[{"name":"a"},{}]}', field('#/people/1/name', NAME)],
  [
    'one that is no object',
    'create-many',
    '{"people":[{"name":"a"},7]}',
    refusedAt('Element 1 must be a JSON object.', '#/people/1', 'must be a JSON object'),
  ],
  ['one that is stored already', 'create-many', `{"people":[{"name":"a"},${ADA_JSON}]}`, conflict],
  ['no id to get', 'get', '{}', field('#/id', UUID)],
  ['a wrong id to get', 'get', '{"id":7}', field('#/id', UUID)],
  ['an id and more to get', 'get', `{"id":"${ADA}","name":"Ada"}`, field('#/name', UNKNOWN)],
  ['nobody to get', 'get', `{"id":"${UNKNOWN_ID}"}`, missing],
  ['no name to find', 'find-by-name', '{}', field('#/name', NAME)],
  ['limit 0', 'find-by-name', '{"name":"Ada","limit":0}', field('#/limit', 'must not be less than 1')],
  ['a limit that is text', 'find-by-name', '{"name":"Ada","limit":"5"}', field('#/limit', LIMIT)],
  ['a limit that is null', 'find-by-name', '{"name":"Ada","limit":null}', field('#/limit', LIMIT)],
  [
    'a wrong cursor',
    'find-by-name',
    '{"name":"Ada","cursor":"x"}',
    field('#/cursor', 'must be `next` of the page before'),
  ],
  ['no id to update', 'update', '{"name":"Eve"}', field('#/id', UUID)],
  ['a name that is null to update', 'update', `{"id":"${ADA}","name":null}`, field('#/name', NAME)],
  ['an unknown field to update', 'update', `{"id":"${ADA}","merge":true}`, field('#/merge', UNKNOWN)],
  ['ifMatch that is a number', 'update', `{"id":"${ADA}","name":"Eve","ifMatch":1}`, IF_MATCH],
  ['ifMatch that is null', 'update', `{"id":"${ADA}","name":"Eve","ifMatch":null}`, IF_MATCH],
  ['another version to update', 'update', `{"id":"${ADA}","name":"Eve","ifMatch":"1.0.1"}`, changed],
  ['no id to delete', 'delete', '{}', field('#/id', UUID)],
  ['ifMatch of wrong parts', 'delete', `{"id":"${ADA}","ifMatch":[1]}`, IF_MATCH],
  ['nobody to delete', 'delete', `{"id":"${UNKNOWN_ID}"}`, missing],
];

const GOODBYE = '01938c5e-7a1b-7c3d-9e2f-4a5b6c7d8e90';
/** A message for each topic that succeeds and leaves the table as it is, and its reply. */
const good: Record<Topic, [value: string, reply: string | null]> = {
  create: [ADA_JSON, ADA_JSON],
  'create-many': ['{"people":[]}', '{"inserted":0}'],
  get: [`{"id":"${ADA}"}`, ADA_JSON],
  'find-by-name': ['{"name":"Ada"}', `{"items":[${ADA_JSON}],"next":null}`],
  update: [`{"id":"${ADA}","name":"Ada"}`, ADA_JSON],
  delete: [`{"id":"${GOODBYE}"}`, null],
};

describe('a bad message changes nothing:', () => {
  const seen: Consumed[] = [];

  const peer = duringTests(() => new KafkaPeer());
  const app = duringTests(() => startKafkaApp(peer));
  beforeAll(async () => {
    await app.send('POST', '/people', ADA_JSON);
    const topics = Object.keys(good).flatMap((topic) => [`people.${topic}`, `people.${topic}-dlt`]);
    await peer.consume(topics, (message) => seen.push(message as Consumed));
  });

  const table = () =>
    app.database.query(`SELECT count(*), md5(string_agg(people::text, '|' ORDER BY id)) FROM people`);
  const find = (topic: string, mark: string) =>
    eventually(() => seen.find((it) => it.topic === topic && it.headers.mark?.toString() === mark));

  it.each(cases)('%s (people.%s) is answered with what is wrong', async (_title, name, value, error) => {
    const before = await table();
    const reply = await peer.ask(`people.${name}`, value);
    expect(reply.error).toEqual(error);
    expect(await table()).toEqual(before);
  });

  // @trap values that are no JSON, or no object
  it.each(cases)(
    '%s (people.%s), unasked, becomes a dead letter and the partition goes on',
    async (_title, name, value, error) => {
      const before = await table();
      const topic = `people.${name}`;
      const mark = randomUUID();
      const headers = { mark, 'message-id': `id of ${mark}`, bytes: Buffer.from([0, 255, 128]) };
      await peer.emit(topic, { partition: 1, key: `key of ${mark}`, value, headers });

      if (name === 'delete')
        await app.database.query(`INSERT INTO people (id, name) VALUES ($1, 'x')`, [GOODBYE]);
      const [next, answer] = good[name];
      expect(await peer.ask(topic, next, { partition: 1 })).toEqual({ value: answer, error: undefined });
      expect(await table()).toEqual(before);

      const sent = await find(topic, mark);
      const dead = await find(`${topic}-dlt`, mark);
      expect(dead.key).toEqual(Buffer.from(`key of ${mark}`));
      expect(dead.value).toEqual(value === null ? null : Buffer.from(value as string));
      expect(dead.headers).toEqual({
        mark: Buffer.from(mark),
        'message-id': Buffer.from(`id of ${mark}`),
        bytes: Buffer.from([0, 255, 128]),
        'kafka_dlt-original-topic': Buffer.from(topic),
        'kafka_dlt-original-partition': Buffer.from('1'),
        'kafka_dlt-original-offset': Buffer.from(sent.offset),
        'kafka_dlt-original-timestamp': Buffer.from(sent.timestamp),
        'kafka_dlt-exception-fqcn': Buffer.from(error.code),
        'kafka_dlt-exception-message': Buffer.from(error.message),
        'people-attempts': Buffer.from('1'),
      });
    },
  );
});

interface Consumed {
  topic: string;
  key: Buffer | null;
  value: Buffer | null;
  headers: Record<string, Buffer | undefined>;
  offset: string;
  timestamp: string;
}
