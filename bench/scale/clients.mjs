import { setTimeout as sleep } from 'node:timers/promises';
import { residentMebibytes } from '../harness/cpu.mjs';
import { measured, openContestants, POOL_SIZE } from '../harness/contestants.mjs';
import { watchMemory } from '../harness/memory.mjs';
import { SEEDED } from '../harness/people.mjs';
import { median, ratioOf, showCpu, toTable } from '../harness/ratios.mjs';
import { requestsOf } from '../harness/requests.mjs';
import { runRounds } from '../harness/rounds.mjs';

export const title = 'Clients: a thousand connections on a pool of ten';

const FEW = 32;
const MANY = 1000;
const OPERATIONS = ['get', 'create'];
/** A turn is long enough for a p99 of its own. */
const TURNS = 5;
/** How long after a turn memory is looked at again; requests that were hung up on are finished by then. */
const AFTERWARDS_MS = 2000;

/** The service with as many clients as the other sections have, and with a thousand. */
export async function run(bench, { postgres, load }) {
  const { turnMs, rounds = 3, isQuick } = bench.options;
  const service = { key: 'clients', title: 'nestjs-people', file: 'contestants/people-http.mjs' };
  const { contestants } = await openContestants(bench, postgres, [service]);
  const ms = isQuick ? turnMs : TURNS * turnMs;
  const turn = (contestant, heat) => takeTurn(contestant, heat, ms, { postgres, load });
  const heats = [FEW, MANY].flatMap((callers) =>
    OPERATIONS.map((operation) => ({ key: `${operation}-${callers}`, operation, callers })),
  );
  const idle = residentMebibytes(contestants[0].pid);
  bench.say('warming up …');
  for (const heat of heats.slice(0, OPERATIONS.length)) await turn(contestants[0], heat);
  const turns = await runRounds(bench, { rounds, contestants, heats, before: postgres.checkpoint, turn });
  const about = `${rounds} rounds of ${ms} ms a turn; pool of ${POOL_SIZE}; ${SEEDED} people; load by ${load.name}, each connection sends as soon as it is answered.`;
  return { about, idle, turns: turns[service.key] };
}

async function takeTurn(contestant, { operation, callers }, ms, { postgres, load }) {
  const { url, pid } = contestant;
  const requests = requestsOf(operation, 0);
  const memory = watchMemory(pid);
  const result = await measured(contestant, postgres, () =>
    load.turn({ url, requests, ms, callers, takesFailures: true }),
  );
  const highest = memory.stop();
  await sleep(AFTERWARDS_MS);
  return { ...result, memory: { before: memory.before, highest, after: residentMebibytes(pid) } };
}

/** A row for each operation and number of connections. */
export function render({ idle, turns }) {
  const rows = OPERATIONS.flatMap((operation) =>
    [FEW, MANY].map((callers) => {
      const own = turns[`${operation}-${callers}`];
      const base = turns[`${operation}-${FEW}`];
      const perSecond = (those) => those.map((turn) => turn.perSecond);
      const { value } = ratioOf(perSecond(own), perSecond(base));
      const of = (what) => median(own.map(what));
      const failed = own.reduce((sum, { failures }) => sum + failures, 0);
      const answered = own.reduce((sum, { operations }) => sum + operations, 0);
      return [
        `${operation}, ${callers} connections`,
        value.toFixed(2),
        showCpu(own),
        of(({ p50 }) => p50).toFixed(1),
        of(({ p99 }) => p99).toFixed(1),
        `${failed} of ${answered}`,
        ['before', 'highest', 'after'].map((when) => of(({ memory }) => memory[when]).toFixed(0)).join(' / '),
      ];
    }),
  );
  const head = [
    '',
    'operations per second ÷',
    'CPU µs',
    'p50 ms',
    'p99 ms',
    'failed',
    'MiB before / most / after',
  ];
  return [
    toTable(head, rows),
    `Before its first request the service had ${idle.toFixed(0)} MiB.`,
    'Who waits for its answer before it sends again waits as long as all the others take: of a thousand connections p50 is a thousand ÷ the requests per second.',
  ].join('\n\n');
}
