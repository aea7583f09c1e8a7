import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { POOL_SIZE } from '../harness/contestants.mjs';
import { cpuMicrosOf } from '../harness/cpu.mjs';
import { openLoad } from '../harness/load.mjs';
import { NODE_FLAGS } from '../harness/node-flags.mjs';
import { freePort, startProgram, untilListens } from '../harness/program.mjs';
import { requestsOf } from '../harness/requests.mjs';
import { runRounds } from '../harness/rounds.mjs';
import { withClient } from '../harness/servers.mjs';
import { renderInstances } from './instances-tables.mjs';
import { applyMessages, groupAtEnd, openTopic, PARTITIONS, UNTIL } from './waiting-messages.mjs';

export const title = 'Instances: one, two and three on one database and in one group';
export const render = renderInstances;

const MOST = 3;
const CALLERS_EACH = 32;
/** What takes longer has gone wrong. */
const SHARED_WITHIN_MS = 120_000;
const WARM_UP_MS = 2000;
const SERVICE = path.join(import.meta.dirname, '../../dist/src/main.js');

/** The service as `npm start` runs it, with events, in several processes. */
export async function run(bench, { postgres }) {
  const { turnMs, rounds = 2, messages } = bench.options;
  const kafka = await openTopic(bench);
  const loads = [];
  for (let n = 0; n < MOST; n++)
    loads.push(await openLoad({ ...bench, directory: path.join(bench.directory, `load-${n}`) }));
  const contestants = Array.from({ length: MOST }, (_, index) => ({ key: `${index + 1}`, count: index + 1 }));
  const turns = await runRounds(bench, {
    rounds,
    contestants,
    heats: [{ key: 'all' }],
    turn: ({ count }) => takeTurn(bench, count, { postgres, kafka, loads }),
  });
  const about = `${rounds} rounds: HTTP of ${turnMs} ms a turn, ${CALLERS_EACH} connections to each instance, load by ${loads[0].name}; ${messages} messages of distinct keys on ${PARTITIONS} partitions, from when all are sent until ${UNTIL * 100} % are applied; a pool of ${POOL_SIZE} each; Kafka of one node.`;
  return { about, turns: contestants.map(({ key, count }) => ({ count, rounds: turns[key].all })) };
}

/** New instances, with a database and a group that are theirs together. */
async function takeTurn(bench, count, { postgres, kafka, loads }) {
  const { turnMs, isQuick, messages } = bench.options;
  const database = `bench_instances_${count}`;
  await postgres.create(database);
  const groupId = await groupAtEnd(kafka.admin);
  const instances = [];
  try {
    for (let n = 0; n < count; n++)
      instances.push(
        await startInstance(bench, n, { databaseUrl: postgres.urlOf(database), kafka, groupId }),
      );
    await untilShared(bench, kafka.admin, groupId, count);
    const cpu = () => ({
      own: instances.reduce((sum, { pid }) => sum + cpuMicrosOf(pid), 0),
      postgres: postgres.cpuMicros(),
      kafka: cpuMicrosOf(kafka.pid),
    });
    const http = (operation, ms) => overHttp(instances, operation, ms, { loads, cpu });
    for (const operation of ['get', 'create']) await http(operation, isQuick ? turnMs : WARM_UP_MS);
    await postgres.checkpoint();
    const get = await http('get', turnMs);
    const create = await http('create', turnMs);
    await postgres.checkpoint();
    const applied = await withClient(postgres.urlOf(database), (client) =>
      applyMessages(bench, client, kafka.producer, { messages, instances, spending: () => since(cpu) }),
    );
    return { get, create, messages: applied };
  } finally {
    await Promise.all(instances.map(({ stop }) => stop()));
    await postgres.drop(database);
  }
}

async function startInstance(bench, n, { databaseUrl, kafka, groupId }) {
  const port = await freePort();
  const env = {
    PORT: String(port),
    LOG_LEVEL: 'warn',
    DATABASE_URL: databaseUrl,
    DB_POOL_SIZE: String(POOL_SIZE),
    KAFKA_BROKERS: kafka.brokers.join(),
    KAFKA_GROUP_ID: groupId,
  };
  const args = [...NODE_FLAGS, SERVICE];
  const own = startProgram(bench, `instance-${n}`, { command: process.execPath, args, env });
  const url = `http://127.0.0.1:${port}`;
  await untilListens(own, url);
  return { ...own, url };
}

/** Until each instance has its share of the partitions. */
async function untilShared({ interrupted }, admin, groupId, count) {
  const until = performance.now() + SHARED_WITHIN_MS;
  for (;;) {
    interrupted.throwIfAborted();
    const [group] = (await admin.describeGroups([groupId])).groups;
    if (group.state === 'Stable' && group.members.length === count) return;
    if (performance.now() > until)
      throw new Error(
        `The group is ${group.state} with ${group.members.length} members; ${count} are started.`,
      );
    await sleep(200);
  }
}

/** All instances at once, each with a generator of its own. */
async function overHttp(instances, operation, ms, { loads, cpu }) {
  const spent = since(cpu);
  const results = await Promise.all(
    instances.map(({ url }, n) =>
      // An instance may have had no turn on a busy machine, as long as no answer was wrong.
      loads[n].turn({
        url,
        requests: requestsOf(operation, 0),
        ms,
        callers: CALLERS_EACH,
        takesFailures: true,
      }),
    ),
  );
  const failures = results.reduce((sum, result) => sum + result.failures, 0);
  if (failures > 0) throw new Error(`${failures} requests to ${instances.length} instances failed.`);
  const operations = results.reduce((sum, result) => sum + result.operations, 0);
  const perSecond = results.reduce((sum, result) => sum + result.operations / result.seconds, 0);
  return { operations, perSecond, ...spent() };
}

/** The CPU time from now on. */
function since(cpu) {
  const before = cpu();
  return () => {
    const after = cpu();
    return {
      ownMicros: after.own - before.own,
      postgresMicros: after.postgres - before.postgres,
      kafkaMicros: after.kafka - before.kafka,
    };
  };
}
