import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { measured, openContestants } from '../harness/contestants.mjs';
import { openLoad } from '../harness/load.mjs';
import { toTable } from '../harness/ratios.mjs';
import { requestsOf } from '../harness/requests.mjs';
import { openPostgres } from '../harness/servers.mjs';
import { whereAndWhen } from '../harness/versions.mjs';

const HEATS = [
  { key: 'get', operation: 'get', callers: 32 },
  { key: 'create', operation: 'create', callers: 32 },
  { key: 'patch', operation: 'patch', callers: 32 },
  { key: 'get, one connection', operation: 'get', callers: 1 },
];
/** So many samples that a small share is one. */
const TURNS = 10;
const PROFILES = path.join(import.meta.dirname, '../../.data/profiles');
/** What takes less of all of them is not shown alone. */
const LEAST_SHARE = 0.005;

/** Where the time of a request goes in the service, under load: by whose code it is. */
export async function run(bench) {
  const { turnMs, isQuick } = bench.options;
  const ms = (isQuick ? 1 : TURNS) * turnMs;
  const postgres = await openPostgres(bench);
  const load = await openLoad(bench);
  const service = { key: 'profile', title: 'nestjs-people', file: 'contestants/people-http.mjs' };
  const [contestant] = (await openContestants(bench, postgres, [service])).contestants;
  const turn = ({ operation, callers }, duration) =>
    measured(contestant, postgres, () =>
      load.turn({ url: contestant.url, requests: requestsOf(operation, 0), ms: duration, callers }),
    );
  mkdirSync(PROFILES, { recursive: true });
  const profiles = [];
  for (const heat of HEATS) {
    bench.say(`warming up, then ${heat.key} …`);
    await turn(heat, ms / 2);
    const plain = await turn(heat, ms);
    await contestant.ask('startProfile');
    await turn(heat, ms);
    const file = path.join(PROFILES, `${heat.operation}-${heat.callers}.cpuprofile`);
    profiles.push({ ...heat, plain, times: await contestant.ask('stopProfile', file) });
  }
  const { commit, machine, versions } = whereAndWhen();
  console.log(
    `32 connections where nothing else is said, ${ms / 1000} s each; commit ${commit}; ${machine}; ${versions}.\n`,
  );
  console.log(table(profiles));
  bench.say(`the profiles are in ${path.relative(process.cwd(), PROFILES)}.`);
}

/** Shares of the busy time of the main thread; and as µs of a request, of what it costs when nobody profiles it. */
function table(profiles) {
  const sums = profiles.map(({ times }) => Object.values(times).reduce((sum, time) => sum + time, 0));
  const shareOf = (index, origin) => (profiles[index].times[origin] ?? 0) / sums[index];
  const perRequest = ({ plain }) => plain.ownMicros / plain.operations;
  const origins = [...new Set(profiles.flatMap(({ times }) => Object.keys(times)))];
  const shown = origins.filter((origin) =>
    profiles.some((_, index) => shareOf(index, origin) >= LEAST_SHARE),
  );
  const cell = (share, profile) =>
    `${(100 * share).toFixed(1)} % (${(share * perRequest(profile)).toFixed(1)})`;
  const rows = shown
    .toSorted((a, b) => shareOf(0, b) - shareOf(0, a))
    .map((origin) => [origin, ...profiles.map((profile, index) => cell(shareOf(index, origin), profile))]);
  const rest = profiles.map((profile, index) =>
    cell(1 - shown.reduce((sum, origin) => sum + shareOf(index, origin), 0), profile),
  );
  const whole = profiles.map((profile) => `${perRequest(profile).toFixed(0)} µs`);
  return toTable(
    ['', ...profiles.map(({ key }) => key)],
    [...rows, ['the rest', ...rest], ['CPU of a request, all threads', ...whole]],
  );
}
