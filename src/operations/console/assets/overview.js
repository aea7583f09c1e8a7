import { read, readText } from './api.js';
import { byId, element, showList } from './dom.js';

const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** The samples of Prometheus' text, by the names of their families. */
export function samplesOf(text) {
  const families = new Map();
  for (const line of text.split('\n')) {
    const [, name, labels = '', value] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line) ?? [];
    if (name === undefined) continue;
    if (!families.has(name)) families.set(name, []);
    families.get(name).push({
      labels: Object.fromEntries([...labels.matchAll(LABEL)].map(([, key, of]) => [key, of])),
      value: Number(value),
    });
  }
  return families;
}

/** undefined where nothing is measured. */
function sum(families, name, wanted = {}) {
  const samples = families
    .get(name)
    ?.filter(({ labels }) => Object.entries(wanted).every(([key, value]) => labels[key] === value));
  return samples?.reduce((total, { value }) => total + value, samples.length > 0 ? 0 : undefined);
}

/** The names of what there is to be shown, and where it is read. */
const FIGURES = [
  [
    'Pool: open',
    (of) =>
      of('people_pool_connections', { state: 'open' }) ??
      plus(
        of('people_pool_connections', { state: 'active' }),
        of('people_pool_connections', { state: 'idle' }),
      ),
  ],
  ['Pool: idle', (of) => of('people_pool_connections', { state: 'idle' })],
  ['Pool: at most', (of) => of('people_pool_max_connections')],
  [
    'Pool: waiting for a connection',
    (of) => of('people_pool_waiting_callers') ?? of('people_pool_connections', { state: 'waiting' }),
  ],
  ['Transactions committed', (of) => of('people_transactions_total', { outcome: 'committed' })],
  ['Transactions retried', (of) => of('people_transaction_retries_total') ?? 0],
  ['Transactions failed', (of) => of('people_transaction_failures_total')],
  ['Messages: lag', (of) => of('people_kafka_lag_messages')],
  ['Messages: in flight', (of) => of('people_messages_in_flight')],
  ['Messages: applied', (of) => of('people_messages_total', { outcome: 'applied' })],
  ['Partitions that stand still', (of) => of('people_kafka_stuck_partitions') ?? 0],
  ['Outbox: events', (of) => of('people_outbox_events')],
  ['Outbox: oldest, seconds', (of) => of('people_outbox_oldest_age_seconds')],
  ['Dead letters', (of) => of('people_dead_letters', { state: 'dead' })],
  ['Instances', (of) => of('people_instances_alive')],
];
const plus = (one, other) => (one === undefined || other === undefined ? undefined : one + other);
const shown = (value) => (Number.isInteger(value) ? value.toLocaleString() : value.toFixed(1));

async function showFigures() {
  const families = samplesOf(await readText('metrics'));
  const of = (name, labels) => sum(families, name, labels);
  byId('figures').replaceChildren(
    ...FIGURES.map(([name, figure]) => {
      const value = figure(of);
      const text = value === undefined || Number.isNaN(value) ? 'not measured' : shown(value);
      return element(
        'div',
        { className: text === 'not measured' ? 'absent' : '' },
        element('dt', {}, name),
        element('dd', {}, text),
      );
    }),
  );
}

async function showHealth() {
  const { status, details = {} } = await read('health/ready', [503]);
  const parts = Object.entries(details);
  showList(
    byId('health'),
    parts.length > 0 ? parts : [['service', { status }]],
    ([name, { status: state, reason }]) => [
      `${name}: `,
      element('strong', { className: state === 'up' || state === 'ok' ? 'good' : 'bad' }, state),
      ...(reason ? [element('div', {}, reason)] : []),
    ],
  );
}

/** What is read again and again. */
export const refreshOverview = () => Promise.all([showFigures(), showHealth()]);
