import { randomUUID } from 'node:crypto';
import { eventually } from '../support/barrier.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { startPrimaryAndStandby } from '../support/standby.js';
import { startTcpProxy } from '../support/tcp-proxy.js';
import { openDatabase } from '../support/test-database.js';

it('messages wait while there is no primary, and then each is applied once, and none is a dead letter', async () => {
  const servers = await startPrimaryAndStandby();
  const { primary, standby } = servers;
  const proxy = await startTcpProxy({ host: '127.0.0.1', port: primary.port });
  const database = await openDatabase(primary.url);
  const peer = new KafkaPeer();
  const environment = { DATABASE_URL: proxy.through(primary.url), DB_ACQUIRE_TIMEOUT_MS: '1000' };
  const app = await startKafkaApp(peer, environment, database);
  try {
    const sent: string[] = [];
    const send = async (name: string, many: number) => {
      const ids = Array.from({ length: many }, () => randomUUID());
      sent.push(...ids);
      await peer.emitAll('people.create', ids.map((id) => ({ key: id, value: JSON.stringify({ id, name }) }))); // prettier-ignore
    };
    await send('before', 50);
    await eventually(async () => (await primary.query('SELECT FROM people')).length > 0);
    await send('meanwhile', 300);
    await primary.kill();
    await standby.promote();
    await primary.start('standby');
    // The address leads to the old one, which is a standby now.
    await send('to a standby', 50);
    const refused = async () => (await app.send('POST', '/people', '{"name":"nowhere"}')).status;
    await eventually(async () => (await refused()) === 503);
    proxy.target = { host: '127.0.0.1', port: standby.port };
    await eventually(async () => {
      const rows = await standby.query<{ id: string }>(`SELECT id FROM people WHERE name <> 'nowhere'`);
      const there = new Set(rows.map(({ id }) => id));
      return rows.length === there.size && sent.every((id) => there.has(id));
    }, 60_000);
    expect(await standby.query('SELECT FROM message_dead_letter')).toEqual([]);
    expect((await app.request('/health/ready')).status).toBe(200);
  } finally {
    await peer.close();
    await app.close();
    await database.drop();
    await proxy.close();
    await servers.stop();
  }
});
