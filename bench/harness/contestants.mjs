import { fileURLToPath } from 'node:url';
import { cpuMicrosOf } from './cpu.mjs';
import { NODE_FLAGS } from './node-flags.mjs';
import { peersOf } from './peers.mjs';
import { startProcess } from './process.mjs';
import { freePort, startProgram, untilListens } from './program.mjs';

export const POOL_SIZE = 10;
const TYPESCRIPT = ['--import', '@swc-node/register/esm-register'];

/**
 * Starts the process of each contestant, which then keeps its connections for the whole section, on a database of its own that
 * bears its key.
 *
 * @param specs each has a `key`, a `title`, and a `file` of ../contestants or of ../peers (and `settings` for its `open`), or a
 *   `program` of its peers
 * @returns the contestants, and which were left out and why
 */
export async function openContestants(bench, postgres, specs) {
  const contestants = [];
  const leftOut = [];
  for (const spec of specs) {
    const { reason, peers } = await peersOf(bench, spec.peers);
    if (reason) leftOut.push({ title: spec.title, reason });
    else {
      try {
        contestants.push(await open(bench, postgres, spec, peers));
      } catch (error) {
        // Ours must run; what others can't do here is said.
        bench.interrupted.throwIfAborted();
        if (!spec.peers) throw error;
        leftOut.push({ title: spec.title, reason: error.message.split('\n')[0] });
      }
    }
  }
  for (const { title, reason } of leftOut) bench.say(`${title} is left out: ${reason}`);
  return { contestants, leftOut };
}

/** What results say of a contestant. */
export const shown = ({ key, title, version, note }) => ({ key, title, version, note });

export const databaseOf = ({ key }) => `bench_${key.replaceAll('-', '_')}`;

async function open(bench, postgres, spec, peers) {
  const database = databaseOf(spec);
  await postgres.create(database);
  const url = postgres.urlOf(database);
  const { version } = spec;
  const own = spec.program ? await openProgram(bench, spec, peers, url) : await openProcess(bench, spec, url);
  return { ...spec, ...own, version: version?.(peers), database };
}

async function openProcess(
  { interrupted, started },
  { title, file, execArgv = [], settings = {} },
  databaseUrl,
) {
  const address = new URL(`../${file}`, import.meta.url).href;
  const args = [address, databaseUrl, String(POOL_SIZE), JSON.stringify(settings)];
  const isTypeScript = fileURLToPath(address).endsWith('.ts');
  const own = startProcess('contestant-process.mjs', {
    name: title,
    args,
    execArgv: [...NODE_FLAGS, ...(isTypeScript ? TYPESCRIPT : execArgv)],
    interrupted,
  });
  started.push(own.stop);
  const opened = await own.ask('open');
  return { ...opened, pid: own.pid, ask: own.ask, cpuMicros: () => own.ask('cpuMicros') };
}

async function openProgram(bench, { key, program }, peers, databaseUrl) {
  const port = await freePort();
  const env = { DATABASE_URL: databaseUrl, PORT: String(port), DB_POOL_SIZE: String(POOL_SIZE) };
  const own = startProgram(bench, key, program(peers, env));
  const url = `http://127.0.0.1:${port}`;
  await untilListens(own, `${url}/people`);
  return { url, cpuMicros: () => cpuMicrosOf(own.pid) };
}

/** One turn, with the CPU time it took there and in PostgreSQL. */
export async function measured(contestant, postgres, act) {
  const [ownBefore, postgresBefore] = [await contestant.cpuMicros(), postgres.cpuMicros()];
  const { operations, seconds, ...others } = await act();
  const [ownAfter, postgresAfter] = [await contestant.cpuMicros(), postgres.cpuMicros()];
  return {
    perSecond: operations / seconds,
    operations,
    ownMicros: ownAfter - ownBefore,
    postgresMicros: postgresAfter - postgresBefore,
    ...others,
  };
}
