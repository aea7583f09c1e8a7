import { readFileSync } from 'node:fs';
import { collectDefaultMetrics, Registry } from 'prom-client';

const page = readFileSync('docs/operations/metrics.md', 'utf8');
const alerts = readFileSync('docs/operations/alerts.yml', 'utf8');
const runbook = readFileSync('docs/operations/runbook.md', 'utf8');

interface Panel {
  id: number;
  type: string;
  title: string;
  targets?: { expr: string }[];
}
const { panels } = JSON.parse(readFileSync('docs/operations/dashboard.json', 'utf8')) as { panels: Panel[] };

/** Labels that Prometheus gives to all that it scrapes. */
const SCRAPED = ['instance', 'job'];
/** By name. Those of the page are held against what is served by test/operations/message-metrics. */
const known = new Map<string, { type: string; labels: string[] }>([['up', { type: 'gauge', labels: [] }]]);

beforeAll(() => {
  for (const [, name, type, labels] of page.matchAll(/^\| `(\w+)` +\| (\w+) +\| (.*?) *\| .+ \|$/gm))
    known.set(name!, { type: type!, labels: [...labels!.matchAll(/`(\w+)`/g)].map(([, label]) => label!) });
  const register = new Registry();
  collectDefaultMetrics({ register });
  for (const { name, type } of register.getMetricsAsArray() as unknown as { name: string; type: string }[])
    known.set(name, { type, labels: [] });
});

const SELECTOR = /(?<![\w.])([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?(?!\s*[\w(])/g;
const GROUPING = /\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g;
const KEYWORDS = ['and', 'or', 'unless', 'bool', 'offset'];

/** What is wrong with a query of Prometheus, as far as it names metrics and labels. */
function faultsOf(query: string): string[] {
  const grouped = [...query.matchAll(GROUPING)].flatMap(([, labels]) => labels!.split(/[,\s]+/));
  const rest = query.replace(GROUPING, ' ').replace(/\[[^\]]*\]/g, ' ');
  const faults: string[] = [];
  const labels = new Set(['le', ...SCRAPED]);
  let metrics = 0;
  for (const [, name, matchers = ''] of rest.matchAll(SELECTOR)) {
    if (KEYWORDS.includes(name!)) continue;
    metrics++;
    const base = name!.replace(/_(bucket|sum|count)$/, '');
    const metric = known.get(name!) ?? (known.get(base)?.type === 'histogram' ? known.get(base) : undefined);
    if (!metric || (metric.type === 'histogram' && base === name)) faults.push(`no such metric: ${name}`);
    for (const label of metric?.labels ?? []) labels.add(label);
    for (const [, label, value] of matchers.matchAll(/(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"/g)) {
      if (![...(metric?.labels ?? []), ...SCRAPED].includes(label!))
        faults.push(`${name} has no label ${label}`);
      // What these may say stands on the page.
      if (!['outcome', 'state', 'source'].includes(label!)) continue;
      for (const one of value!.split('|'))
        if (!page.includes(`\`${one}\``)) faults.push(`${label} is never ${one}`);
    }
  }
  if (metrics === 0) faults.push('names no metric');
  for (const label of grouped) if (label && !labels.has(label)) faults.push(`no label ${label}`);
  return faults;
}

it('a query that names what is not there is found', () => {
  expect(faultsOf('sum by (topic) (rate(people_messages_total{outcome="applied"}[5m])) > 0')).toEqual([]);
  expect(faultsOf('rate(people_message_total[5m])')).toEqual(['no such metric: people_message_total']);
  expect(faultsOf('people_message_age_seconds')).toEqual(['no such metric: people_message_age_seconds']);
  expect(faultsOf('people_messages_total{result="applied"}')).toHaveLength(1);
  expect(faultsOf('people_messages_total{outcome="done"}')).toEqual(['outcome is never done']);
  expect(faultsOf('sum by (route) (people_messages_total)')).toEqual(['no label route']);
});

it('the alerts ask for metrics and labels that there are, and each has its lines in the runbook', () => {
  const rules = [...alerts.matchAll(/- alert: (\w+)\n +expr: (.+)\n((?: {8}.*\n)+)/g)];
  expect(rules.length).toBe(alerts.match(/alert:/g)!.length);
  expect(rules.length).toBeGreaterThan(15);
  for (const [, name, query, rest] of rules) {
    expect([name, faultsOf(query!)]).toEqual([name, []]);
    expect(rest).toMatch(/severity: (page|ticket)/);
    expect(rest).toContain(`runbook_url: runbook.md#${name!.toLowerCase()}\n`);
    expect(rest).toMatch(/summary: '.+'/);
  }
  const headings = [...runbook.matchAll(/^## (\w+)$/gm)].map(([, name]) => name);
  expect(headings).toEqual(rules.map(([, name]) => name));
});

it('the dashboard asks for metrics and labels that there are', () => {
  const asking = panels.filter(({ type }) => type !== 'row');
  expect(asking.length).toBeGreaterThan(20);
  for (const { title, targets = [] } of asking) {
    expect([title, targets.length > 0]).toEqual([title, true]);
    for (const { expr } of targets) expect([expr, faultsOf(expr)]).toEqual([expr, []]);
  }
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
});

it('every metric of the page is on the dashboard or in an alert', () => {
  const asked = [alerts, ...panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))].join('\n');
  const own = [...known.keys()].filter((name) => /^(people|http)_/.test(name));
  expect(own.filter((name) => !new RegExp(`\\b${name}(_\\w+)?\\b`).test(asked))).toEqual([]);
});
