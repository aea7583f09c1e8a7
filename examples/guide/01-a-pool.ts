import { once } from 'node:events';
import pg from 'pg';
import { openPeople } from './people-app.js';
import { openTypeOrm } from './people-table.js';

// With pg: one pool for the whole process, made once, ended once.
const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  max: 10, // connections at most; whoever comes when all are taken waits
  connectionTimeoutMillis: 2000, // for so long; left out, for ever
});
pool.on('error', (error) => console.log('an idle connection was lost:', error.message));

const answer = await pool.query<{ sum: number }>('SELECT 40 + 2 AS sum');
console.log('pg says', answer.rows[0]?.sum);

// A server that restarts, or an operator, ends connections that nobody is using at the moment.
const operator = new pg.Client(process.env.DATABASE_URL);
await operator.connect();
const lost = once(pool, 'error');
await operator.query(`
  SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid()`);
await lost;
await operator.end();
console.log('and then', (await pool.query<{ sum: number }>('SELECT 40 + 2 AS sum')).rows[0]?.sum);

// A client that is taken and not given back is gone for good.
const small = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  max: 1,
  connectionTimeoutMillis: 100,
});
const forgotten = await small.connect(); // and no release()
await small.query('SELECT 1').catch((error: Error) => console.log('the next one is told:', error.message));
forgotten.release();
console.log('given back:', (await small.query('SELECT 1')).rowCount, 'row');
await small.end();
await pool.end();

// With TypeORM: a DataSource is the pool, and more.
const dataSource = await openTypeOrm();
const [row] = await dataSource.query<{ sum: number }[]>('SELECT 40 + 2 AS sum');
console.log('TypeORM says', row?.sum);
await dataSource.destroy();

// With nestjs-people: the pool of the application's own DataSource.
const app = await openPeople();
const ada = await app.people.create({ name: 'Ada' });
console.log('nestjs-people has stored', (await app.people.get(ada.id)).name);
await app.close();
