import { duringTests } from '../support/during-tests.js';
import { startPeopleApp } from '../support/people-app.js';
import { createDatabase } from '../support/test-database.js';
import { startTlsServer } from '../support/tls-server.js';

const database = duringTests(() => createDatabase());
const server = duringTests(() => {
  const { hostname, port } = new URL(database.url);
  return startTlsServer({ host: hostname, port: Number(port) }, 'localhost');
});

/** The hosts of a url that trusts the server's certificate. */
const urlOf = (...hosts: string[]) => {
  const url = new URL(database.url);
  const parameters = `sslmode=verify-full&sslrootcert=${encodeURIComponent(server.authority)}`;
  return database.url.replace(url.host, hosts.map((host) => `${host}:${server.port}`).join(',')) + `?${parameters}`; // prettier-ignore
};

it('a host whose certificate is for another name is not the one', async () => {
  const app = await startPeopleApp({ DATABASE_URL: urlOf('127.0.0.1', 'localhost') }, database);
  try {
    const { status } = await app.send('POST', '/people', '{"name":"over TLS"}');
    expect(status).toBe(201);
  } finally {
    await app.close();
  }
  const start = startPeopleApp({ DATABASE_URL: urlOf('127.0.0.1', '127.0.0.1') }, database);
  await expect(start).rejects.toThrow(/127\.0\.0\.1:\d+: .*certificate's altnames/);
});
