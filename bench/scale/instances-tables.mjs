import { median, ratioOf, showRatio, toTable } from '../harness/ratios.mjs';

const WORK = [
  ['get', 'HTTP get'],
  ['create', 'HTTP create'],
  ['messages', 'message people.create, applied'],
];
const SECOND_IN_MICROS = 1e6;
/** Cores of a larger server, for which there is arithmetic alone. */
const CORES = [4, 16, 64];

/** A row for each kind of work: rates against one instance, CPU of one operation, and what follows from it by arithmetic. */
export function renderInstances({ turns }) {
  const [one] = turns;
  const of = (turn, work) => turn.rounds.map((round) => round[work]);
  const perSecond = (turn, work) => of(turn, work).map((each) => each.perSecond);
  const head = ['', ...turns.map(({ count }) => `${count} ${count === 1 ? 'instance' : 'instances'}`)];
  const ratios = WORK.map(([work, title]) => [
    title,
    ...turns.map((turn) => {
      if (turn === one) return '1.00';
      return showRatio(ratioOf(perSecond(turn, work), perSecond(one, work)));
    }),
  ]);
  const micros = (turn, work, whose) => {
    const rounds = of(turn, work);
    const sum = (what) => rounds.reduce((total, round) => total + round[what], 0);
    return sum(whose) / sum('operations');
  };
  const shown = (turn, work) =>
    ['ownMicros', 'postgresMicros', ...(work === 'get' ? [] : ['kafkaMicros'])]
      .map((whose) => micros(turn, work, whose).toFixed(0))
      .join(' + ');
  const costs = WORK.map(([work, title]) => [title, ...turns.map((turn) => shown(turn, work))]);
  const beyond = WORK.map(([work, title]) => {
    const [own, server] = ['ownMicros', 'postgresMicros'].map((whose) => micros(one, work, whose));
    return [
      title,
      rounded(SECOND_IN_MICROS / own),
      ...CORES.map(
        (cores) => `${rounded((cores * SECOND_IN_MICROS) / server)} (${((cores * own) / server).toFixed(0)})`,
      ),
    ];
  });
  const inboxBytes = median(of(one, 'messages').map((each) => each.inboxBytes));
  return [
    'Operations per second ÷ those of one instance. On two cores the instances, PostgreSQL, Kafka and the load have no more to share than before:',
    toTable(head, ratios),
    'CPU µs of one operation, the instances’ + PostgreSQL’s + Kafka’s. As long as these stay, more cores give more operations:',
    toTable(head, costs),
    'Arithmetic, not measured: operations per second that the CPU times of one instance allow. One instance is one core of Node; in brackets, how many instances it takes to fill that many cores of PostgreSQL. Disk and network are left out:',
    toTable(['', 'of one instance', ...CORES.map((cores) => `of ${cores} cores of PostgreSQL`)], beyond),
    `A row of message_inbox takes ${inboxBytes.toFixed(0)} bytes with its indexes; each message and each request with an Idempotency-Key leaves one for INBOX_RETENTION_MS.`,
  ].join('\n\n');
}

/** No more digits than the figures are good for. */
const rounded = (number) => Number(number.toPrecision(2)).toLocaleString('en');
