import { DataSource } from 'typeorm';
import { ticketQuery } from '../../src/database/transaction-ids.js';
import { readTicket } from '../../src/transactions/session/commit-ticket.js';
import { resolveCommit } from '../../src/transactions/unit/commit-outcome.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { onServer, createDatabase } from '../support/test-database.js';
import { startTcpProxyTo } from '../support/tcp-proxy.js';

const database = duringTests(() => createDatabase());

async function withRunner(
  options: { url?: string; extra?: object },
  use: (runner: TransactionRunner) => Promise<void>,
): Promise<void> {
  const { url = database.url, extra } = options;
  const poolErrorHandler = () => undefined;
  const dataSource = new DataSource({ type: 'postgres', url, poolSize: 2, poolErrorHandler, extra });
  await dataSource.initialize();
  try {
    await use(new TransactionRunner(dataSource, {}));
  } finally {
    await dataSource.destroy();
  }
}

const insert = { text: `INSERT INTO people (name) VALUES ('once')` };
const stored = async () => (await database.query(`SELECT FROM people WHERE name = 'once'`)).length;
beforeEach(() => database.query('TRUNCATE people'));

// @trap the answer to COMMIT is lost
it('a session that is ended while its COMMIT waits for a standby is asked for until the server knows: it is done', () =>
  withRunner({}, async (runner) => {
    const waiting = `SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = current_database()`;
    await onServer(async (query) => {
      // Nobody else waits for it: the server of the tests commits without waiting for anything.
      await query(`ALTER SYSTEM SET synchronous_standby_names = 'nobody'`);
      await query('SELECT pg_reload_conf()');
      try {
        let runs = 0;
        const unit = runner.run({}, async (transaction) => {
          runs++;
          await transaction.query({ text: `SET LOCAL synchronous_commit = 'on'` });
          await transaction.query(insert);
          return 'done';
        });
        const [session] = await eventually(async () => {
          const rows = await database.query<{ pid: number }>(waiting);
          return rows.length > 0 && rows;
        });
        await database.query('SELECT pg_terminate_backend($1)', [session!.pid]);
        expect(await unit).toBe('done');
        expect([runs, await stored()]).toEqual([1, 1]);
      } finally {
        await query('ALTER SYSTEM RESET synchronous_standby_names');
        await query('SELECT pg_reload_conf()');
      }
    });
  }));

it('a COMMIT that pg gave up waiting for (query_timeout) is a lost one, and its client is used no more', async () => {
  const proxy = await startTcpProxyTo(database.url);
  let swallowed = 0;
  proxy.onClientData = (data) => (data.includes('COMMIT') && swallowed++ === 0 ? 'swallow' : 'pass');
  await withRunner({ url: proxy.through(database.url), extra: { query_timeout: 300 } }, async (runner) => {
    const pids: number[] = [];
    await runner.run({}, async (transaction) => {
      const { rows } = await transaction.query<{ pid: number }>({ text: 'SELECT pg_backend_pid() AS pid' });
      pids.push(rows[0]!.pid);
      await transaction.query(insert);
    });
    expect(new Set(pids).size).toBe(2);
    expect(await stored()).toBe(1);
  });
  await proxy.close();
});

describe('what the server says of a transaction', () => {
  /** A transaction of its own, and what would be remembered of it. */
  const remember = async (end: 'COMMIT' | 'ROLLBACK', write = true) => {
    await database.query('BEGIN');
    if (write) await database.query(insert.text);
    const [row] = await database.query<{ concat: string }>(ticketQuery('18.0'));
    await database.query(end);
    return readTicket(row!.concat);
  };
  const resolve = (runner: TransactionRunner, ticket: { xid: string | null; incarnation: string }) =>
    resolveCommit(runner.dataSource, ticket, 0);

  it('is believed: committed, aborted', () =>
    withRunner({}, async (runner) => {
      expect(await resolve(runner, await remember('COMMIT'))).toBe('committed');
      expect(await resolve(runner, await remember('ROLLBACK'))).toBe('aborted');
    }));

  it('is not asked where nothing was written: there is nothing to be done twice', () =>
    withRunner({}, async (runner) => {
      const ticket = await remember('COMMIT', false);
      expect(ticket.xid).toBeNull();
      expect(await resolve(runner, ticket)).toBe('aborted');
    }));

  it('is not believed after a crash, which may have given the id to another transaction', () =>
    withRunner({}, async (runner) => {
      const ticket = { ...(await remember('COMMIT')), incarnation: 'another' };
      expect(await resolve(runner, ticket)).toBe('unknown');
    }));

  it('is unknown where it does not know the id, as after a failover, or does not say in time', () =>
    withRunner({}, async (runner) => {
      const ticket = await remember('COMMIT');
      expect(await resolve(runner, { ...ticket, xid: String(Number(ticket.xid) + 1_000_000) })).toBe(
        'unknown',
      );
      await database.query('BEGIN');
      const [row] = await database.query<{ xid: string }>('SELECT pg_current_xact_id()::text AS xid');
      expect(await resolve(runner, { ...ticket, xid: row!.xid })).toBe('unknown');
      await database.query('ROLLBACK');
    }));
});
