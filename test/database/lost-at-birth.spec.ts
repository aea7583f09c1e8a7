import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';

let app: PeopleApp;
/** The same database through a network that is slow for a moment. */
let slow: PeopleApp;
let server: Server;
const sockets = new Set<Socket>();
let killed = 0;
let isDeadly = false;

/** BackendKeyData, the backend's pid being the first number in it, and the ReadyForQuery that ends the greeting. */
const GREETING_END = /K\0\0\0.([^]{4})[^]*Z\0\0\0\x05I$/;

beforeAll(async () => {
  app = await startPeopleApp();
  const url = new URL(app.database.url);
  const target = { host: url.hostname, port: Number(url.port) };
  server = createServer((client) => {
    const upstream = connect(target);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    }
    client.on('data', (data) => upstream.write(data)).on('close', () => upstream.end());
    let held = Buffer.alloc(0);
    upstream.on('data', (data) => {
      held = Buffer.concat([held, data]);
      const [, pid] = GREETING_END.exec(held.toString('latin1')) ?? [];
      if (pid && isDeadly) {
        isDeadly = false;
        killed++;
        // What it says of its end joins what is held.
        void app.database.query('SELECT pg_terminate_backend($1)', [
          Buffer.from(pid, 'latin1').readInt32BE(),
        ]);
        return;
      }
      client.write(held);
      held = Buffer.alloc(0);
    });
    upstream.on('close', () => client.destroySoon());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  slow = await startPeopleApp({ DATABASE_URL: url.href, DB_POOL_SIZE: '2' }, app.database);
});
afterAll(async () => {
  await slow.close();
  for (const socket of sockets) socket.destroy();
  server.close();
  await app.close();
});

it('a backend that is killed as soon as it has greeted is no error of the process, and its client is replaced', async () => {
  await app.database.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nestjs-people' AND datname = current_database()`,
  );
  isDeadly = true;
  const { id } = await slow.transactions.run({}, () => slow.people.create({ name: 'born twice' }));
  expect(killed).toBe(1);
  expect((await slow.people.get(id)).name).toBe('born twice');
});
