import { Kafka, logLevel, Partitioners } from 'kafkajs';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { CONTESTANTS } from '../contestants/of-kafka.mjs';
import { WrongAnswerError } from '../harness/check.mjs';
import { databaseOf, POOL_SIZE } from '../harness/contestants.mjs';
import { cpuMicrosOf, residentMebibytes } from '../harness/cpu.mjs';
import { peersOf } from '../harness/peers.mjs';
import { dataJsonOf } from '../harness/people.mjs';
import { freePort, startProgram } from '../harness/program.mjs';
import { median, ratioOf, showCpu, showRatio, toTable } from '../harness/ratios.mjs';
import { chosen, runRounds } from '../harness/rounds.mjs';
import { openKafka, openPostgres, withClient } from '../harness/servers.mjs';
import { named } from '../report/operation-tables.mjs';

export const title = 'Kafka: people.create, applied';
const TOPIC = 'people.create';
const PARTITIONS = 4;
const SEND_AT_ONCE = 5000;
const HEAT = 'create';
/** A slow one is told to stop; its rate is that of what it had done by then. */
const LONGEST_MS = 20_000;
const STARTS_WITHIN_MS = 90_000;
/** Whoever applies messages twice has the time to. */
const AFTERWARDS_MS = 500;

/** Messages that wait are applied: each turn is a new process, with a group and a database of its own, from the beginning on. */
export async function run(bench) {
  const { messages, isQuick, rounds = 3 } = bench.options;
  const postgres = await openPostgres(bench, { commitTimestamps: true });
  const { brokers } = await openKafka(bench);
  await fill(bench, brokers, messages);
  const contestants = [];
  const leftOut = [];
  for (const spec of chosen(bench, CONTESTANTS)) {
    const { reason, peers } = await peersOf(bench, spec.peers);
    if (reason) leftOut.push({ title: spec.title, reason });
    else contestants.push({ ...spec, peers, version: spec.version?.(peers) });
  }
  const turns = await runRounds(bench, {
    rounds,
    contestants,
    heats: [{ key: HEAT }],
    turn: async (contestant) => {
      const result = await takeTurn(bench, contestant, { postgres, brokers, messages });
      bench.say(`${contestant.key}: ${result.perSecond.toFixed(0)} messages a second`);
      return result;
    },
  });
  const noteOf = (key) => turns[key][HEAT].map(({ note }) => note).find(Boolean);
  return {
    about: [
      `${rounds} rounds; ${messages} messages of distinct keys on ${PARTITIONS} partitions, each turn ${LONGEST_MS / 1000} s at most; pool of ${POOL_SIZE}; PostgreSQL ${postgres.version}, Kafka of one node.`,
      ...(isQuick ? ['Too few messages to measure anything.'] : []),
    ],
    contestants: contestants.map(({ key, title: name, promise, version }) => ({
      key,
      title: name,
      promise,
      version,
      note: noteOf(key),
    })),
    leftOut,
    turns,
  };
}

async function fill({ say, interrupted }, brokers, messages) {
  say(`sending ${messages} messages …`);
  const kafka = new Kafka({ brokers, logLevel: logLevel.NOTHING });
  const [admin, producer] = [
    kafka.admin(),
    kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner }),
  ];
  await Promise.all([admin.connect(), producer.connect()]);
  await admin.createTopics({ topics: [{ topic: TOPIC, numPartitions: PARTITIONS }], waitForLeaders: true });
  for (let from = 0; from < messages; from += SEND_AT_ONCE) {
    interrupted.throwIfAborted();
    const numbers = Array.from({ length: Math.min(SEND_AT_ONCE, messages - from) }, (_, n) => from + n);
    await producer.send({
      topic: TOPIC,
      messages: numbers.map((n) => ({
        key: randomUUID(),
        value: `{"name":"Person ${n}","data":${dataJsonOf(n)}}`,
      })),
    });
  }
  await Promise.all([admin.disconnect(), producer.disconnect()]);
}

async function takeTurn(bench, contestant, { postgres, brokers, messages }) {
  const database = databaseOf(contestant);
  await postgres.create(database, { isSeeded: false });
  await postgres.checkpoint();
  const url = postgres.urlOf(database);
  const env = {
    DATABASE_URL: url,
    PORT: String(await freePort()),
    DB_POOL_SIZE: String(POOL_SIZE),
    KAFKA_BROKERS: brokers.join(),
    KAFKA_GROUP_ID: `${contestant.key}-${randomUUID()}`,
  };
  const own = startProgram(bench, contestant.key, contestant.program(contestant.peers, env));
  try {
    return await withClient(url, (client) => watch(client, contestant, own, postgres, messages));
  } finally {
    await own.stop('SIGKILL');
    await postgres.drop(database);
  }
}

/** Looks at the table until all is there; what it tells is from commit times as the server wrote them down. */
async function watch(client, contestant, own, postgres, messages) {
  const count = async () => (await client.query('SELECT count(*)::int AS n FROM people')).rows[0].n;
  const usage = async () => ({
    rows: await count(),
    own: cpuMicrosOf(own.pid),
    postgres: postgres.cpuMicros(),
  });
  let deadline = performance.now() + STARTS_WITHIN_MS;
  let first;
  let last;
  let memory = 0;
  for (;;) {
    own.assertRuns();
    last = await usage();
    memory = Math.max(memory, residentMebibytes(own.pid) || 0);
    if (last.rows > 0 && !first) {
      first = last;
      deadline = performance.now() + LONGEST_MS;
    }
    if (last.rows >= messages || performance.now() > deadline) break;
    await sleep(first ? 100 : 20);
  }
  if (!first) throw new WrongAnswerError(`${contestant.title}: nothing was applied.\n${own.said()}`);
  if (last.rows >= messages) await sleep(AFTERWARDS_MS);
  else await own.stop('SIGKILL');
  const note = await checkApplied(client, contestant, messages, last.rows >= messages);
  return {
    ...(await rates(client)),
    operations: last.rows - first.rows,
    ownMicros: last.own - first.own,
    postgresMicros: last.postgres - first.postgres,
    memory,
    note,
  };
}

/** @throws WrongAnswerError when a message was applied twice, or is missing at the end */
async function checkApplied(client, { title: name }, messages, isAll) {
  const { rows } = await client.query(
    `SELECT count(*)::int AS n, count(DISTINCT name)::int AS distinct, count(*) FILTER (WHERE data::text ~
      ('many_many_fields": ?' || (18446744073709551615 - substr(name, 8)::numeric)::text || '[,}]'))::int AS exact
      FROM people`,
  );
  const [{ n, distinct, exact }] = rows;
  if (n > distinct || (isAll && n !== messages))
    throw new WrongAnswerError(
      `${name}: ${n} people of ${distinct} messages are there; ${messages} are right.`,
    );
  return exact < n ? 'changes digits' : undefined;
}

/** From the first commit to the last, and of the half that came later, when all is warm. */
async function rates(client) {
  const { rows } = await client.query(
    `WITH t AS MATERIALIZED (SELECT pg_xact_commit_timestamp(xmin) AS at FROM people),
      e AS (SELECT min(at) AS first, max(at) AS last, percentile_disc(0.5) WITHIN GROUP (ORDER BY at) AS middle FROM t)
     SELECT (SELECT count(*) FROM t WHERE at > first) / nullif(extract(epoch FROM last - first), 0) AS whole,
      (SELECT count(*) FROM t WHERE at > middle) / nullif(extract(epoch FROM last - middle), 0) AS half FROM e`,
  );
  return { perSecond: Number(rows[0].whole ?? NaN), laterHalf: Number(rows[0].half ?? NaN) };
}

/** Messages applied per second, by contestant. */
export function render({ contestants, turns }) {
  const [base] = contestants;
  const of = ({ key }, what) => turns[key][HEAT].map((each) => each[what]);
  const cell = (contestant, what) =>
    contestant === base ? '1.00' : showRatio(ratioOf(of(contestant, what), of(base, what)));
  return toTable(
    ['', 'promise', 'messages per second', 'of the later half', 'CPU µs', 'MiB'],
    contestants.map((contestant) => [
      named(contestant),
      contestant.promise,
      cell(contestant, 'perSecond'),
      cell(contestant, 'laterHalf'),
      showCpu(turns[contestant.key][HEAT]),
      median(of(contestant, 'memory')).toFixed(0),
    ]),
  );
}
