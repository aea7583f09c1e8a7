import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import pg from 'pg';
import {
  PeopleModule,
  PeopleService,
  TransactionRetriesExhaustedError,
  TransactionRunner,
} from '../../dist/src/index.js';

const POOL_SIZE = 10;
const HOT_ROWS = 4;
/** The row of the bystander, which nobody changes. */
export const QUIET_ROW = HOT_ROWS;

const SELECT = { name: 'hot_select', text: 'SELECT n FROM hot WHERE id = $1' };
const UPDATE = { name: 'hot_update', text: 'UPDATE hot SET n = $2 WHERE id = $1' };
const INCREMENT = { name: 'hot_increment', text: 'UPDATE hot SET n = n + 1 WHERE id = $1' };

/**
 * Each contestant has `unit(row)`, which adds one to a row and resolves with the attempts that took, or with undefined when it
 * gave up, and `read(row)`, for the bystander. The policies of others are what their sources do, over bare pg.
 */
export async function openContestants(databaseUrl) {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: POOL_SIZE });
  // Of idle clients, when the server stops before the pool; what a turn meets is thrown by its query.
  pool.on('error', () => undefined);
  await pool.query(
    'DROP TABLE IF EXISTS hot; CREATE TABLE hot (id int PRIMARY KEY, n int NOT NULL) WITH (fillfactor = 50)',
  );
  await pool.query('INSERT INTO hot SELECT id, 0 FROM generate_series(0, $1::int) id', [QUIET_ROW]);
  let increments = 0;
  const counted = async (work) => {
    const attempts = await work;
    if (attempts !== undefined) increments++;
    return attempts;
  };
  const context = await openApplication(databaseUrl);
  const transactions = context.get(TransactionRunner);
  const people = context.get(PeopleService);
  const { ids } = await people.createMany(
    Array.from({ length: QUIET_ROW + 1 }, (_, row) => ({ name: `person ${row}` })),
  );
  const readPool = (row) => pool.query({ ...SELECT, values: [row] });
  const readRunner = (row) => transactions.runStatement({ ...SELECT, values: [row] }, { writes: false });
  const retried = (key, title, policy) => ({
    key,
    title,
    unit: (row) => counted(readModifyWrite(pool, row, policy)),
    read: readPool,
  });
  const run = (key, title, keyOf, last) => ({
    key,
    title,
    unit: (row) => counted(runUnit(transactions, row, keyOf(row), last)),
    read: readRunner,
  });
  const contestants = [
    {
      key: 'limit',
      title: 'one UPDATE at READ COMMITTED (the limit)',
      unit: (row) => counted(pool.query({ ...INCREMENT, values: [row] }).then(() => 1)),
      read: readPool,
    },
    {
      key: 'increment-in-turn',
      title: 'TransactionRunner, conflictKey, the same UPDATE',
      unit: (row) => counted(incrementInTurn(transactions, row)),
      read: readRunner,
    },
    run('read-modify-write', 'TransactionRunner, conflictKey, read-modify-write', (row) => ({
      conflictKey: `hot:${row}`,
    })),
    run(
      'commit-with',
      'TransactionRunner, conflictKey, read-modify-write, COMMIT with the last statement (commitWith)',
      (row) => ({ conflictKey: `hot:${row}` }),
      'commitWith',
    ),
    run('default-policy', 'TransactionRunner, default policy, read-modify-write', () => ({})),
    {
      key: 'people-update',
      title: 'PeopleService.update',
      unit: (row) => people.update(ids[row], { name: 'new' }).then(() => 1),
      read: (row) => people.get(ids[row]),
    },
    retried('slonik', 'slonik’s policy: 6 attempts at once', { attempts: 6, delay: () => 0 }),
    retried('zapatos', 'zapatos’ policy: 5 attempts, 25 to 250 ms, connection held', {
      attempts: 5,
      delay: () => 25 + Math.random() * 225,
    }),
    retried('no-retry', 'no retry', { attempts: 1, delay: () => 0 }),
  ];
  return {
    contestants,
    check: async () => {
      const { rows } = await pool.query('SELECT sum(n)::int AS sum FROM hot');
      if (rows[0].sum !== increments)
        throw new Error(`${increments} units were reported done, ${rows[0].sum} are there`);
    },
    close: async () => {
      await context.close();
      await pool.end();
    },
  };
}

function openApplication(databaseUrl) {
  class HostModule {}
  const imports = [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: databaseUrl,
      poolSize: POOL_SIZE,
      autoLoadEntities: true,
    }),
    PeopleModule.forRoot({ controllers: { http: false, messages: false } }),
  ];
  return NestFactory.createApplicationContext({ module: HostModule, imports }, { logger: false });
}

async function incrementInTurn(transactions, row) {
  await transactions.runStatement(
    { ...INCREMENT, values: [row] },
    { writes: true, conflictKey: `hot:${row}` },
  );
  return 1;
}

/** @param last how the last statement is sent: `query`, or `commitWith` */
async function runUnit(transactions, row, options, last = 'query') {
  try {
    return await transactions.run({ isolationLevel: 'SERIALIZABLE', ...options }, async (transaction) => {
      const { rows } = await transaction.query({ ...SELECT, values: [row] });
      await transaction[last]({ ...UPDATE, values: [row, rows[0].n + 1] });
      return transaction.attempt;
    });
  } catch (error) {
    if (error instanceof TransactionRetriesExhaustedError) return undefined;
    throw error;
  }
}

/** Read, decide, write, under SERIALIZABLE, on one connection that is held over all attempts. */
async function readModifyWrite(pool, row, { attempts, delay }) {
  const client = await pool.connect();
  try {
    for (let attempt = 1; attempt <= attempts; attempt++) {
      try {
        await client.query('BEGIN ISOLATION LEVEL SERIALIZABLE');
        const { rows } = await client.query({ ...SELECT, values: [row] });
        await client.query({ ...UPDATE, values: [row, rows[0].n + 1] });
        await client.query('COMMIT');
        return attempt;
      } catch (error) {
        await client.query('ROLLBACK');
        if (error.code !== '40001' && error.code !== '40P01') throw error;
        const ms = delay();
        if (ms > 0 && attempt < attempts) await new Promise((resolve) => setTimeout(resolve, ms));
      }
    }
    return undefined;
  } finally {
    client.release();
  }
}
