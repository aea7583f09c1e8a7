import { DataSource } from 'typeorm';
import type { TransactionOptions } from '../../src/transactions/transaction-options.js';
import { TransactionRunner } from '../../src/transactions/transaction-runner.js';
import { closedPort } from '../support/service-process.js';
import { type PrimaryAndStandby, startPrimaryAndStandby } from '../support/standby.js';
import { type Decision, startTcpProxy } from '../support/tcp-proxy.js';

let servers: PrimaryAndStandby;
afterEach(() => servers.stop());

const count = async () => (await servers.standby.query(`SELECT FROM people WHERE name = 'once'`)).length;

/** The standby hears of nothing that the primary does from now on. */
async function stopReplication(): Promise<void> {
  const [sender] = await servers.primary.query<{ pid: number }>('SELECT pid FROM pg_stat_replication');
  process.kill(sender!.pid, 'SIGSTOP');
}

/** A unit whose first COMMIT is lost as `decision` says, and meets nobody until `failOver` has found another primary. */
async function loseCommit(
  decision: Decision,
  failOver: (xid: string) => Promise<void>,
  options: TransactionOptions = {},
): Promise<{ outcome: string; runs: number }> {
  const { primary, standby } = servers;
  const proxy = await startTcpProxy({ host: '127.0.0.1', port: primary.port });
  const nowhere = await closedPort();
  const lost = new Promise<void>((resolve) => {
    let seen = 0;
    proxy.onClientData = (data) => {
      if (!data.includes('COMMIT') || seen++ > 0) return 'pass';
      proxy.target = { host: '127.0.0.1', port: nowhere };
      resolve();
      return decision;
    };
  });
  const poolErrorHandler = () => undefined;
  const dataSource = new DataSource({ type: 'postgres', url: proxy.through(primary.url), poolSize: 2, poolErrorHandler }); // prettier-ignore
  await dataSource.initialize();
  let xid = '';
  let runs = 0;
  const unit = new TransactionRunner(dataSource, {}).run(options, async (transaction) => {
    runs++;
    await transaction.query({ text: `INSERT INTO people (name) VALUES ('once')` });
    const { rows } = await transaction.query<{ xid: string }>({ text: 'SELECT pg_current_xact_id()::text AS xid' }); // prettier-ignore
    xid = rows[0]!.xid;
    return 'done';
  });
  const told = unit.catch(({ type }: { type?: string }) => String(type));
  try {
    await lost;
    await failOver(xid);
    proxy.target = { host: '127.0.0.1', port: standby.port };
    return { outcome: await told, runs };
  } finally {
    await dataSource.destroy();
    await proxy.close();
  }
}

async function isCommitted(xid: string): Promise<void> {
  for (;;) {
    const [row] = await servers.primary.query<{ status: string }>('SELECT pg_xact_status($1::text::xid8) AS status', [xid]); // prettier-ignore
    if (row!.status === 'committed') return;
  }
}

it('is unknown where the new primary has given its id to another transaction: what that became of proves nothing', async () => {
  servers = await startPrimaryAndStandby({ isSynchronous: false });
  await servers.caughtUp();
  await stopReplication();
  const { outcome, runs } = await loseCommit('cut-after', async (xid) => {
    await isCommitted(xid);
    await servers.primary.kill();
    await servers.standby.promote();
    for (let n = 0; n < 20; n++) await servers.standby.query(`INSERT INTO people (name) VALUES ('other')`);
    // The id is somebody else's now.
    const [row] = await servers.standby.query('SELECT pg_xact_status($1::text::xid8) AS status', [xid]);
    expect(row).toEqual({ status: 'committed' });
  });
  expect([outcome, runs, await count()]).toEqual(['transaction-outcome-unknown', 1, 0]);
});

it('is unknown where the new primary has not given its id out yet', async () => {
  servers = await startPrimaryAndStandby({ isSynchronous: false });
  await servers.caughtUp();
  await stopReplication();
  const { outcome, runs } = await loseCommit('cut-after', async (xid) => {
    await isCommitted(xid);
    await servers.primary.kill();
    await servers.standby.promote();
  });
  expect([outcome, runs, await count()]).toEqual(['transaction-outcome-unknown', 1, 0]);
});

it('is not done a second time where a synchronous standby has it', async () => {
  servers = await startPrimaryAndStandby();
  const { outcome, runs } = await loseCommit('cut-after', async (xid) => {
    await isCommitted(xid);
    await servers.caughtUp();
    await servers.primary.kill();
    await servers.standby.promote();
  });
  expect([outcome, runs, await count()]).toEqual(['transaction-outcome-unknown', 1, 1]);
});

it('is not told by a standby that has it, and may yet be promoted or not', async () => {
  servers = await startPrimaryAndStandby();
  const toStandby = async (xid: string) => {
    await isCommitted(xid);
    await servers.caughtUp();
  };
  const { outcome, runs } = await loseCommit('cut-after', toStandby, { timeoutMs: 2000 });
  expect([outcome, runs, await count()]).toEqual(['transaction-outcome-unknown', 1, 1]);
});

it('that never came to the old primary is done by the new one, once', async () => {
  servers = await startPrimaryAndStandby();
  const { outcome, runs } = await loseCommit('cut-before', async () => {
    // Whatever is older is on its way with it.
    await servers.primary.query(`INSERT INTO people (name) VALUES ('other')`);
    await servers.caughtUp();
    await servers.primary.kill();
    await servers.standby.promote();
  });
  expect([outcome, runs, await count()]).toEqual(['done', 2, 1]);
});
