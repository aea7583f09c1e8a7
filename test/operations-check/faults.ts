import { setTimeout as sleep } from 'node:timers/promises';
import { fillDisk } from './disk-full.js';
import { type Stage, SERVICE_ROLE } from './stage.js';

/** What happens on a bad night. */
export interface Fault {
  name: string;
  /** The database takes writes all the time and an instance is there: then no request over HTTP may fail. */
  serves: boolean;
  /** Something is wrong, and has to be told by a metric and a line of the log. */
  isTold: boolean;
  /** It is none: what moves then moves always. */
  isCalm?: boolean;
  /** @returns once it is over; false where it can't be made here @param ms how long it lasts, where that can be said */
  strike: (stage: Stage, ms: number) => Promise<boolean | void>;
}

const KILL_EVERY_MS = 500;

export const FAULTS: readonly Fault[] = [
  {
    ...{ name: 'database stopped', serves: false, isTold: true },
    strike: ({ database }, ms) => database.stopFor(ms),
  },
  {
    ...{ name: 'database hangs', serves: false, isTold: true },
    strike: ({ database }, ms) => database.hang(ms),
  },
  {
    ...{ name: 'broker stopped', serves: true, isTold: true },
    strike: ({ broker }, ms) => broker.stopFor(ms),
  },
  {
    ...{ name: 'broker paused', serves: true, isTold: true },
    strike: ({ broker }, ms) => broker.hang(ms),
  },
  { name: 'backends killed', serves: true, isTold: true, strike: killBackends },
  { name: 'disk full', serves: false, isTold: true, strike: fillDisk },
  { name: 'read-only', serves: false, isTold: true, strike: makeReadOnly },
  { name: 'password rotated', serves: true, isTold: false, strike: rotatePassword },
  { name: 'rolling restart', serves: true, isTold: false, strike: restartEach },
];

async function killBackends({ database }: Stage, ms: number): Promise<void> {
  const end = Date.now() + ms;
  do {
    await database.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [
      SERVICE_ROLE,
    ]);
    await sleep(KILL_EVERY_MS);
  } while (Date.now() < end);
}

/** As where somebody has made a server read-only, or it has become a standby. */
async function makeReadOnly({ database }: Stage, ms: number): Promise<void> {
  await database.query('ALTER SYSTEM SET default_transaction_read_only = on');
  await database.query('SELECT pg_reload_conf()');
  await sleep(ms);
  await database.query('ALTER SYSTEM RESET default_transaction_read_only');
  await database.query('SELECT pg_reload_conf()');
}

/** In the database first: what is connected stays so, but may be not ready; every instance is started again with the new one. */
async function rotatePassword(stage: Stage): Promise<void> {
  await stage.changePassword();
  await restartEach(stage);
}

async function restartEach({ instances, balancer }: Stage): Promise<void> {
  for (const instance of instances) {
    await instance.stop();
    await instance.start();
    // As an orchestrator does, which lets the others be as they are.
    while (!balancer.isReady(instance)) await sleep(100);
  }
}
