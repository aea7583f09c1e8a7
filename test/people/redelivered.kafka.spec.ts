import { randomUUID } from 'node:crypto';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';

const peer = duringTests(() => new KafkaPeer());
const app = duringTests(() => startKafkaApp(peer));

it('a message with an id of the sender’s that is delivered again changes nothing and has the same reply', async () => {
  const message = JSON.stringify({ id: randomUUID(), name: 'Ada', data: { born: 1815 } });
  const first = await peer.ask('people.create', message);
  const again = await peer.ask('people.create', message);
  expect(first.error).toBeUndefined();
  expect(again).toEqual(first);
  expect(await app.database.query(`SELECT name FROM people WHERE name = 'Ada'`)).toHaveLength(1);
});

it('the same message twice at once is one person as well', async () => {
  const message = JSON.stringify({ id: randomUUID(), name: 'Grace' });
  const replies = await Promise.all(
    [1, 2, 3, 4].map((key) => peer.ask('people.create', message, { key: String(key) })),
  );
  expect(replies.map(({ error }) => error)).toEqual([undefined, undefined, undefined, undefined]);
  expect(new Set(replies.map(({ value }) => value)).size).toBe(1);
  expect(await app.database.query(`SELECT name FROM people WHERE name = 'Grace'`)).toHaveLength(1);
});
