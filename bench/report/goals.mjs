import { median, ratioOf, toTable } from '../harness/ratios.mjs';
import { goals as hotRowGoals } from '../sections/hot-row.mjs';

const SINGLE = ['get', 'create', 'update', 'remove'];

/** Of nestjs-people's operations per second ÷ those of another: what is aimed at, for each. */
const RATIOS = [
  ['http', 'people-http', 'rust-transaction', { get: 1.5, create: 1.3, patch: 1.3 }, 32],
  ['http', 'people-http', 'rust-prepared', { get: 0.8 }, 32],
  ['http', 'people-http', 'bare-fastify', { get: 1.5, create: 1.3 }, 32],
  ['http', 'people-http', 'stock-nest', { get: 7, create: 4 }, 32],
  ['http', 'people-http', 'spring', { get: 5, create: 3 }, 32],
  ['service', 'people-service', 'raw-pg-transaction', all(SINGLE, 4), 32],
  ['service', 'people-service', 'raw-pg', all(SINGLE, 2), 32],
  ['service', 'people-service', 'raw-pg', all(SINGLE, 0.9), 1],
  ['kafka', 'people-no-events', 'spring-batch', { create: 1 }],
  ['kafka', 'people', 'spring-batch', { create: 0.6 }],
  ['kafka', 'people-no-events', 'stock-nest', { create: 13 }],
  ['kafka', 'people', 'stock-nest', { create: 8 }],
  ['kafka', 'people-no-events', 'each-batch', { create: 0.3 }],
  ['kafka', 'people', 'each-batch', { create: 0.2 }],
  ['bulk', 'people-http', 'psql', { import: 1 }],
];

function all(operations, goal) {
  return Object.fromEntries(operations.map((operation) => [operation, goal]));
}

/** Goal and measured, one line a ratio, of the sections that are there. */
export function goalTable(results) {
  const rows = [
    ...RATIOS.flatMap((line) => ratioRows(results, line)),
    ...memoryRows(results.bulk),
    ...hotRowRows(results['hot-row']),
  ];
  return toTable(['nestjs-people ÷ the other', 'goal', 'measured', 'lowest..highest'], rows);
}

function ratioRows(results, [section, own, other, goals, callers]) {
  const result = results[section];
  if (!result) return [];
  const titleOf = (key) => result.contestants.find((each) => each.key === key)?.title;
  return Object.entries(goals).map(([operation, goal]) => {
    const heat = callers ? `${operation}-${callers}` : operation;
    const what = [section, operation, callers && `(${callers})`].filter(Boolean).join(' ');
    const isOwn = own === result.contestants[0].key;
    const title = `${what}${isOwn ? '' : `, ${titleOf(own) ?? own}`} ÷ ${titleOf(other) ?? other}`;
    const [ours, theirs] = [own, other].map((key) => result.turns[key]?.[heat]);
    if (!ours || !theirs) return [title, `≥ ${goal}`, 'not measured', '–'];
    const perSecond = (turns) => turns.map((turn) => turn.perSecond);
    const { value, from, to } = ratioOf(perSecond(ours), perSecond(theirs));
    return [title, `≥ ${goal}`, verdict(value, value >= goal), `${from.toFixed(2)}..${to.toFixed(2)}`];
  });
}

const GROWTH_MEBIBYTES = 50;

function memoryRows(bulk) {
  if (!bulk) return [];
  const growths = bulk.turns['people-http'].import.map(({ growth }) => growth);
  const row = (rows, growth) => [
    `bulk: MiB that memory grows by, ${rows} people`,
    `< ${GROWTH_MEBIBYTES}`,
    verdict(growth, growth < GROWTH_MEBIBYTES, 0),
    '–',
  ];
  const [{ operations }] = bulk.turns['people-http'].import;
  return [row(operations, median(growths)), ...(bulk.large ? [row(bulk.large.rows, bulk.large.growth)] : [])];
}

function hotRowRows(result) {
  if (!result) return [];
  return hotRowGoals(result).map(({ title, atLeast, atMost, value, from, to }) => {
    const [goal, isMet] = atMost ? [`≤ ${atMost}`, value <= atMost] : [`≥ ${atLeast}`, value >= atLeast];
    return [title, goal, verdict(value, isMet), `${from.toFixed(2)}..${to.toFixed(2)}`];
  });
}

const verdict = (value, isMet, digits = 2) =>
  `${isMet ? '' : '**not met:** '}${Number.isFinite(value) ? value.toFixed(digits) : '–'}`;
