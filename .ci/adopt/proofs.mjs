import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import pg from 'pg';
import { command } from './readme.mjs';

/** Starts the application, and has it show what the README says of it. */
export async function prove(at, { postgres, name, kafka, say }) {
  const database = await createDatabase(postgres, name);
  const port = await freePort();
  const settings = {
    DATABASE_URL: database,
    PORT: String(port),
    ...(kafka && { KAFKA_BROKERS: kafka.brokers.join(',') }),
  };
  const server = spawn(process.execPath, ['dist/main.js'], {
    cwd: at,
    env: { PATH: process.env.PATH, NODE_ENV: 'production', ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [server.stdout, server.stderr]) stream.on('data', (data) => (output += data));
  const client = new pg.Client(database);
  try {
    await client.connect();
    const url = `http://localhost:${port}`;
    await until(async () => {
      assert.equal(server.exitCode, null, 'it did not start');
      return (await fetch(url).catch(() => undefined)) !== undefined;
    });
    firstAnswer(port);
    say('201');
    await rollback(url);
    say('a rollback');
    if (kafka) {
      await onceAndItsEvent(kafka, client, name);
      say('a message applied once, and its event');
    }
    server.kill('SIGTERM');
    await Promise.race([once(server, 'exit'), sleep(30_000, undefined, { ref: false })]);
    assert.notEqual(server.exitCode ?? server.signalCode, null, 'it did not stop');
  } catch (error) {
    throw new Error(`${error.message}\n\nThe application said:\n${output}`, { cause: error });
  } finally {
    if (server.exitCode === null) server.kill('SIGKILL');
    await client.end();
  }
}

/** The README's curl. */
function firstAnswer(port) {
  const curl = command('In your application', 'curl').replace('localhost:3000', `localhost:${port}`);
  const answer = execFileSync('sh', ['-c', curl], { encoding: 'utf8' });
  assert.match(answer, /^HTTP\/1\.1 201 /, answer);
  assert.match(answer, /"name":"Ada","data":\{"many_many_fields":18446744073709551615\}\}$/, answer);
}

async function rollback(url) {
  const sign = async (name) => {
    const body = JSON.stringify({ title: 'Lease', name });
    const headers = { 'content-type': 'application/json' };
    return (await fetch(`${url}/contracts`, { method: 'POST', headers, body })).status;
  };
  assert.equal(await sign('Barbara'), 201);
  const second = await sign('Grace');
  assert.ok(second >= 400, `the second has ${second}`);
  const named = async (name) => (await (await fetch(`${url}/people?name=${name}`)).json()).items.length;
  assert.deepEqual([await named('Barbara'), await named('Grace')], [1, 0]);
}

/** A message that comes twice, and another of its key behind it: two contracts, two events. */
async function onceAndItsEvent({ brokers }, client, name) {
  // Applications before this one have used the same topics.
  const [deed, will] = [`Deed of ${name}`, `Will of ${name}`];
  const kafka = new Kafka({ clientId: 'adopt', brokers, logLevel: logLevel.NOTHING });
  const [producer, consumer] = [
    kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner }),
    kafka.consumer({ groupId: `adopt-${Date.now()}` }),
  ];
  try {
    await Promise.all([producer.connect(), consumer.connect()]);
    const message = (id, title) => ({
      key: 'k',
      value: JSON.stringify({ title, name: 'Edsger' }),
      headers: { 'message-id': id },
    });
    const messages = [message('a', will), message('a', will), message('b', deed)];
    await until(() =>
      producer.send({ topic: 'contracts.sign', messages }).then(
        () => true,
        () => false,
      ),
    );
    const events = [];
    await until(() =>
      consumer.subscribe({ topic: 'contracts.events', fromBeginning: true }).then(
        () => true,
        () => false,
      ),
    );
    await consumer.run({
      eachMessage: async ({ message: { value } }) => void events.push(JSON.parse(value.toString()).title),
    });
    await until(async () => events.includes(deed));
    assert.deepEqual(events.filter((title) => title.endsWith(` of ${name}`)).sort(), [deed, will]);
    const { rows } = await client.query(`SELECT count(*)::int AS n FROM people WHERE name = 'Edsger'`);
    assert.deepEqual(rows, [{ n: 2 }]);
  } finally {
    await Promise.all([producer.disconnect(), consumer.disconnect()]);
  }
}

async function createDatabase({ url }, name) {
  const client = new pg.Client(url);
  await client.connect();
  await client.query(`CREATE DATABASE ${name}`);
  await client.end();
  return Object.assign(new URL(url), { pathname: `/${name}` }).href;
}

async function freePort() {
  const server = createServer().listen(0);
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return port;
}

async function until(condition, atMostMs = 60_000) {
  for (const end = Date.now() + atMostMs; !(await condition());) {
    assert.ok(Date.now() < end, `it did not happen within ${atMostMs} ms`);
    await sleep(100);
  }
}
