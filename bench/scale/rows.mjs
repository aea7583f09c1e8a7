import { createWriteStream } from 'node:fs';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkCount } from '../harness/check.mjs';
import { databaseOf, measured, openContestants } from '../harness/contestants.mjs';
import { startProcess } from '../harness/process.mjs';
import { runRounds } from '../harness/rounds.mjs';
import { buffersOf } from './buffers.mjs';
import { checkTable, fillTable, removeNew } from './large-table.mjs';
import { newLine, OPERATIONS } from './rows-operations.mjs';
import { renderRows } from './rows-tables.mjs';

export const title = 'Rows: what an operation costs in a small table and in a large one';
export const render = renderRows;

const CALLERS = 32;
const REQUESTS = 4096;
/** For the answers that wrk does not wait for. */
const FOR_THE_UNANSWERED_MS = 50;

/** Tables of different sizes, each in a database of its own with a service of its own, take their turns as contestants do. */
export async function run(bench, { postgres, load }) {
  const { turnMs, rounds = 3, mostRows, isQuick } = bench.options;
  const imported = isQuick ? 1000 : 20_000;
  const file = await writeImport(bench, imported);
  const uploader = startProcess('upload.mjs', { interrupted: bench.interrupted });
  bench.started.push(uploader.stop);
  const specs = sizesUpTo(mostRows, isQuick).map(specOf);
  for (const spec of specs) {
    const database = databaseOf(spec);
    await postgres.create(database, { isSeeded: false });
    await fillTable(bench, postgres, { database, rows: spec.rows });
  }
  const { contestants } = await openContestants(bench, { ...postgres, create: () => undefined }, specs);
  for (const contestant of contestants) await checkTable(contestant);

  const turn = (contestant, operation, ms) =>
    operation.isImport
      ? takeImport(contestant, { postgres, upload: uploader.ask, file, rows: imported })
      : takeTurn(contestant, operation, ms, { postgres, load });
  bench.say('warming up …');
  for (const contestant of contestants)
    for (const operation of OPERATIONS) await turn(contestant, operation, isQuick ? turnMs : 2 * turnMs);
  const turns = await runRounds(bench, {
    rounds,
    contestants,
    heats: OPERATIONS,
    before: postgres.checkpoint,
    turn: (contestant, operation) => turn(contestant, operation, turnMs),
  });
  const sizes = [];
  for (const { key, rows, database } of contestants) {
    const [{ bytes }] = await postgres.query(
      database,
      `SELECT pg_total_relation_size('people')::float8 AS bytes`,
    );
    sizes.push({
      key,
      rows,
      gibibytes: bytes / 2 ** 30,
      buffers: await buffersOf(postgres, { database, rows }),
    });
  }
  const about = `${rounds} rounds of ${turnMs} ms a turn, ${CALLERS} connections, load by ${load.name}; imports of ${imported} people.`;
  return { about, sizes, turns };
}

function sizesUpTo(most, isQuick) {
  const sizes = [];
  for (let rows = isQuick ? 2000 : 10_000; rows <= most; rows *= 10) sizes.push(rows);
  return sizes;
}

const specOf = (rows) => ({
  key: `rows-${rows}`,
  title: `${rows} people`,
  rows,
  file: 'contestants/people-http.mjs',
});

async function writeImport({ directory }, rows) {
  const file = path.join(directory, 'import.ndjson');
  const lines = Array.from({ length: rows }, () => `${newLine()}\n`);
  await pipeline(Readable.from(lines), createWriteStream(file));
  return file;
}

async function takeTurn(contestant, { key, request }, ms, { postgres, load }) {
  const { url, database, rows } = contestant;
  const requests = Array.from({ length: REQUESTS }, () => request(rows));
  const result = await withWal(postgres, () =>
    measured(contestant, postgres, () => load.turn({ url, requests, ms, callers: CALLERS })),
  );
  await sleep(FOR_THE_UNANSWERED_MS);
  const created = key === 'create' ? result.operations : 0;
  const unanswered = key === 'create' ? load.unanswered(CALLERS) : 0;
  await checkCount(contestant, postgres, rows + created, { atMost: rows + created + unanswered });
  if (created > 0) await removeNew(postgres, database);
  return result;
}

async function takeImport(contestant, { postgres, upload, file, rows }) {
  const { url, database } = contestant;
  const result = await withWal(postgres, () =>
    measured(contestant, postgres, async () => ({
      operations: rows,
      seconds: await upload('upload', { url, file, rows }),
    })),
  );
  await checkCount(contestant, postgres, contestant.rows + rows);
  await removeNew(postgres, database);
  return result;
}

async function withWal(postgres, act) {
  const written = async () =>
    (await postgres.query('postgres', `SELECT (pg_current_wal_insert_lsn() - '0/0')::float8 AS bytes`))[0]
      .bytes;
  const before = await written();
  const result = await act();
  return { ...result, walBytes: (await written()) - before };
}
