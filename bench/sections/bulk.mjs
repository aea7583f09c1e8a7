import { CONTESTANTS } from '../contestants/of-bulk.mjs';
import { WrongAnswerError } from '../harness/check.mjs';
import { databaseOf, openContestants, shown } from '../harness/contestants.mjs';
import { cpuMicrosOf } from '../harness/cpu.mjs';
import { watchMemory } from '../harness/memory.mjs';
import { median, ratioOf, showCpu, showRatio, toTable } from '../harness/ratios.mjs';
import { chosen, runRounds } from '../harness/rounds.mjs';
import { openPostgres } from '../harness/servers.mjs';
import { startProcess } from '../harness/process.mjs';
import { named } from '../report/operation-tables.mjs';

export const title = 'Bulk: people imported';
const HEAT = 'import';

/** Many people in one import, all or none of them, beside PostgreSQL's own way: rows per second, and memory. */
export async function run(bench) {
  const { rows, largeRows, rounds = 5 } = bench.options;
  const postgres = await openPostgres(bench);
  const uploader = startProcess('upload.mjs', { interrupted: bench.interrupted });
  bench.started.push(uploader.stop);
  const tools = { postgres, upload: (argument) => uploader.ask('upload', argument) };
  const files = await uploader.ask('files', { directory: bench.directory, rows });
  const specs = chosen(bench, CONTESTANTS);
  const { contestants, leftOut } = await openContestants(
    bench,
    { ...postgres, create: (name) => postgres.create(name, { isSeeded: false }) },
    specs.filter(({ file }) => file),
  );
  for (const spec of specs.filter(({ file }) => !file)) {
    const version = await spec.find();
    if (!version) leftOut.push({ title: spec.title, reason: 'it is not installed' });
    else {
      await postgres.create(databaseOf(spec), { isSeeded: false });
      contestants.push({ ...spec, version, database: databaseOf(spec) });
    }
  }
  const turn = (contestant, given) => takeTurn(contestant, { ...given, ...tools });
  bench.say('warming up …');
  for (const contestant of contestants) await turn(contestant, { rows, files });
  const turns = await runRounds(bench, {
    rounds,
    contestants,
    heats: [{ key: HEAT }],
    turn: (contestant) => turn(contestant, { rows, files }),
  });
  const [ours] = contestants;
  let large;
  if (largeRows > 0) {
    bench.say(`importing ${largeRows} people …`);
    const { growth } = await turn(ours, { rows: largeRows });
    large = { rows: largeRows, growth };
  }
  return {
    about: [`${rounds} rounds of ${rows} people; PostgreSQL ${postgres.version}.`],
    contestants: contestants.map(shown),
    leftOut,
    turns,
    large,
  };
}

async function takeTurn(contestant, { rows, files, postgres, upload }) {
  const { database, title: name } = contestant;
  await postgres.query(database, 'TRUNCATE people');
  await postgres.checkpoint();
  const url = postgres.urlOf(database);
  const memory = watchMemory(contestant.pid);
  const [own, server] = [cpuMicrosOf(contestant.pid), postgres.cpuMicros()];
  const seconds = await contestant.take({ contestant, databaseUrl: url, files, rows, upload });
  const [ownAfter, serverAfter] = [cpuMicrosOf(contestant.pid), postgres.cpuMicros()];
  const growth = memory.stop() - memory.before;
  const stored = await postgres.count(database);
  if (stored !== rows)
    throw new WrongAnswerError(`${name}: ${stored} people are stored where ${rows} are right.`);
  return {
    perSecond: rows / seconds,
    operations: rows,
    ownMicros: ownAfter - own,
    postgresMicros: serverAfter - server,
    growth,
  };
}

/** Rows per second, and how much memory grew. */
export function render({ contestants, turns, large }) {
  const [base] = contestants;
  const of = ({ key }, what) => turns[key][HEAT].map((each) => each[what]);
  const rows = contestants.map((contestant) => [
    named(contestant),
    contestant === base ? '1.00' : showRatio(ratioOf(of(contestant, 'perSecond'), of(base, 'perSecond'))),
    showCpu(turns[contestant.key][HEAT]),
    growthOf(of(contestant, 'growth')),
  ]);
  const tables = [toTable(['', 'rows per second', 'CPU µs a row', 'memory grew by MiB'], rows)];
  if (large)
    tables.push(
      `While nestjs-people imported ${large.rows} people, its memory grew by ${large.growth.toFixed(0)} MiB.`,
    );
  return tables.join('\n\n');
}

const growthOf = (growths) => (growths.every(Number.isFinite) ? median(growths).toFixed(0) : '–');
