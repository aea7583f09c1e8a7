import os from 'node:os';
import path from 'node:path';
import { checkAnswers, checkCreated, WrongAnswerError } from './check.mjs';
import { openDatabase } from './database.mjs';
import { OptionError, readOptions, USAGE } from './options.mjs';
import { SEEDED } from './people.mjs';
import { startProcess } from './process.mjs';
import { shuffled } from './shuffled.mjs';
import { toTable } from './table.mjs';

const DATA_DIRECTORY = path.join(import.meta.dirname, '../.data/bench');
const OPERATIONS = ['get', 'create'];
const CALLERS = 32;
const POOL_SIZE = 10;
const WARM_UP_MS = 1000;

/** The first of each layer is what the others are compared with. */
const LAYERS = [
  {
    title: 'Data layer',
    contestants: [
      { title: 'pg, named statement', file: 'raw-pg.mjs' },
      { title: 'pg, named statement, BEGIN … COMMIT', file: 'raw-pg-transaction.mjs' },
      { title: 'nestjs-people, PeopleService', file: 'people-service.mjs' },
      { title: 'TypeORM repository in a transaction', file: 'typeorm-repository.mjs' },
    ],
  },
  {
    title: 'HTTP',
    contestants: [
      { title: 'Fastify and pg, named statement', file: 'bare-fastify.mjs' },
      { title: 'nestjs-people, the service', file: 'people-http.mjs' },
      {
        title: 'Nest on Express, ValidationPipe, TypeORM repository in a transaction',
        file: 'stock-nest.ts',
        execArgv: ['--import', '@swc-node/register/esm-register'],
      },
    ],
  },
];

const say = (text) => console.error(`bench: ${text}`);
const ending = new AbortController();
const interrupted = ending.signal;
/** What has to be ended, in the order it was started. */
const started = [];

async function main({ rounds, turnMs }) {
  say('starting PostgreSQL and the contestants …');
  const database = await openDatabase({ directory: DATA_DIRECTORY, onProgress: say, interrupted });
  started.push(database.close);
  const load = startProcess('load.mjs', { interrupted });
  started.push(load.stop);
  for (const { contestants } of LAYERS) {
    for (const contestant of contestants) await open(contestant, database.url, load);
  }

  say('checking that all of them do the same …');
  for (const contestant of everyContestant()) await checkAnswers(contestant, database);

  say('warming up …');
  for (const operation of OPERATIONS) {
    for (const contestant of everyContestant()) await measure(contestant, operation, WARM_UP_MS, database);
  }

  // Short turns in a random order: what disturbs the machine for a while meets everybody, and nobody is always first.
  const turns = new Map(everyContestant().map((contestant) => [contestant, { get: [], create: [] }]));
  for (let round = 1; round <= rounds; round++) {
    say(`round ${round} of ${rounds} …`);
    for (const { contestants, operation } of shuffled(heats())) {
      for (const contestant of shuffled(contestants)) {
        turns.get(contestant)[operation].push(await measure(contestant, operation, turnMs, database));
      }
    }
  }

  const tables = LAYERS.map(({ title, contestants }) => toTable(title, contestants, OPERATIONS, turns));
  console.log([describe(database, rounds, turnMs), ...tables].join('\n\n'));
}

const everyContestant = () => LAYERS.flatMap(({ contestants }) => contestants);
/** Contestants that are compared have their turns right after one another. */
const heats = () =>
  LAYERS.flatMap(({ contestants }) => OPERATIONS.map((operation) => ({ contestants, operation })));

/** Starts a contestant's process, which then keeps its connections for the whole run. */
async function open(contestant, databaseUrl, load) {
  const { title: name, file, execArgv } = contestant;
  const args = [`./contestants/${file}`, databaseUrl, String(POOL_SIZE)];
  const own = startProcess('contestant.mjs', { name, args, execArgv, interrupted });
  started.push(own.stop);
  const { url } = await own.ask('open');
  contestant.url = url;
  contestant.ask = own.ask;
  contestant.turn = (turn) => (url ? load.ask('turn', { ...turn, url }) : own.ask('turn', turn));
}

/** One turn, with the CPU time it took here and in PostgreSQL. */
async function measure(contestant, operation, ms, database) {
  const cpu = async () => [await contestant.ask('cpuMicros'), database.cpuMicros()];
  const people = operation === 'create' ? await database.count() : 0;
  const [nodeBefore, postgresBefore] = await cpu();
  const { operations, seconds } = await contestant.turn({ operation, ms, callers: CALLERS });
  const [nodeAfter, postgresAfter] = await cpu();
  if (operation === 'create') await checkCreated(contestant, database, people + operations);
  return {
    perSecond: operations / seconds,
    operations,
    nodeMicros: nodeAfter - nodeBefore,
    postgresMicros: postgresAfter - postgresBefore,
  };
}

function describe({ version }, rounds, turnMs) {
  return [
    `${rounds} rounds of ${turnMs} ms a turn; ${CALLERS} callers; pool of ${POOL_SIZE}; ${SEEDED} people;`,
    `Node ${process.versions.node}, PostgreSQL ${version}, ${os.availableParallelism()} cores, ${os.platform()}.`,
    'Median (lowest..highest) of the ratios of operations per second, each within one round.',
    'CPU time: Node + PostgreSQL.',
    ...(rounds < 5 ? ['Fewer than 5 rounds: shows that it runs, measures nothing.'] : []),
  ].join('\n');
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => ending.abort(new Error(`interrupted by ${signal}`)));
}
try {
  const options = readOptions(process.argv.slice(2), process.env);
  if (options.help) console.log(USAGE);
  else await main(options);
} catch (error) {
  process.exitCode = interrupted.aborted ? 130 : 1;
  if (interrupted.aborted) say(`${interrupted.reason.message}; ending everything …`);
  else if (error instanceof OptionError) say(`${error.message}\n\n${USAGE}`);
  else say(error instanceof WrongAnswerError ? error.message : error.stack);
} finally {
  while (started.length > 0) await started.pop()();
}
