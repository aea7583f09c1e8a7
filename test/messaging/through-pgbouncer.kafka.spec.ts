import { eventually } from '../support/barrier.js';
import { deadIn, messagesOf, PEOPLE, storedOf } from '../support/created-by-messages.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { describeWithPgBouncer, POOL_MODES, startPgBouncer } from '../support/pgbouncer.js';
import { createDatabase, openDatabase } from '../support/test-database.js';

describeWithPgBouncer('through PgBouncer', () => {
  describe.each(POOL_MODES)('(%s pooling) messages and events', (poolMode) => {
    const database = duringTests(() => createDatabase());
    const bouncer = duringTests(() =>
      startPgBouncer({
        server: database.url,
        poolMode,
        // Fewer than the service has, where they go from hand to hand.
        settings: { default_pool_size: poolMode === 'transaction' ? 4 : 20 },
      }),
    );
    const through = duringTests(() => openDatabase(bouncer.url));
    const peer = duringTests(() => new KafkaPeer());
    const app = duringTests(() => startKafkaApp(peer, { DB_POOL_SIZE: '10' }, through));

    it('are applied and sent once each, beside requests', async () => {
      const events: (string | undefined)[] = [];
      await peer.consume(['people.events'], ({ key }) => events.push(key?.toString()));
      const [replies, requests] = await Promise.all([
        Promise.all(
          messagesOf('asked').map(({ value, ...message }) => peer.ask('people.create', value, message)),
        ),
        Promise.all(messagesOf('http').map(({ value }) => app.send('POST', '/people', value))),
        peer.emitAll('people.create', messagesOf('emitted')),
      ]);
      expect(replies.filter(({ error }) => error)).toEqual([]);
      expect([...new Set(requests.map(({ status }) => status))]).toEqual([201]);
      await eventually(async () => (await storedOf(database, 'emitted')) === PEOPLE, 30_000);
      expect([await storedOf(database, 'asked'), await storedOf(database, 'http')]).toEqual([PEOPLE, PEOPLE]);
      await eventually(() => events.length >= 3 * PEOPLE, 30_000);
      expect(new Set(events).size).toBe(3 * PEOPLE);
      expect(await deadIn(database)).toEqual([]);
    });
  });
});
