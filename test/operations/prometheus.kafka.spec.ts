import { readFileSync } from 'node:fs';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { PROMETHEUS, Prometheus } from '../support/prometheus.js';
import { startTcpProxyTo } from '../support/tcp-proxy.js';
import { createDatabase } from '../support/test-database.js';
import { parseExposition } from './exposition.js';

const { panels } = JSON.parse(readFileSync('docs/operations/dashboard.json', 'utf8')) as {
  panels: { title: string; targets?: { expr: string }[] }[];
};
/** As Grafana sends them. */
const queries = panels.flatMap(({ targets = [] }) =>
  targets.map(({ expr }) => expr.replaceAll('$instance', '.*').replaceAll('$__rate_interval', '1m')),
);

if (!PROMETHEUS)
  console.error('prometheus is not installed: the tests of the alerts and the dashboard on it are left out.');
const onPrometheus = PROMETHEUS ? describe : describe.skip;

onPrometheus('a Prometheus with the configuration of docs/operations', () => {
  const peer = duringTests(() => new KafkaPeer());
  const database = duringTests(() => createDatabase());
  const proxy = duringTests(() => startTcpProxyTo(database.url));
  const app = duringTests(() =>
    startKafkaApp(
      peer,
      { DATABASE_URL: proxy.through(database.url), DB_ACQUIRE_TIMEOUT_MS: '500' },
      database,
    ),
  );
  const prometheus = duringTests(() => Prometheus.start(new URL(app.url).host), 60_000);
  const stateOf = async (alert: string) =>
    (await prometheus.rules()).find(({ name }) => name === alert)?.state;

  it('understands every alert, and none of them is on where all is well', async () => {
    const rules = await eventually(async () => {
      const all = await prometheus.rules();
      return all.every(({ health }) => health !== 'unknown') && all;
    }, 60_000);
    expect(rules).toHaveLength(readFileSync('docs/operations/alerts.yml', 'utf8').match(/alert:/g)!.length);
    expect(rules.filter(({ health }) => health !== 'ok')).toEqual([]);
    expect(rules.filter(({ state }) => state === 'firing')).toEqual([]);
  });

  it('answers every query of the dashboard, with something where there is something to be told', async () => {
    await app.send('POST', '/people', '{"name":"Ada"}');
    await peer.ask('people.create', '{"name":"Grace"}');
    await eventually(async () => (await prometheus.query('people_messages_total > 0')).length > 0, 30_000);
    // A rate needs two of them.
    const [up] = await prometheus.query('count_over_time(up{job="people"}[5m])');
    const seen = Number(up!.value[1]);
    await eventually(
      async () =>
        Number((await prometheus.query('count_over_time(up{job="people"}[5m])'))[0]!.value[1]) > seen + 2,
      30_000,
    );
    const families = parseExposition(await (await app.request('/metrics')).text());
    const isTold = (name: string) => {
      const family = families.get(name) ?? families.get(name.replace(/_(bucket|sum|count)$/, ''));
      return family !== undefined && family.samples.length > 0;
    };
    const silent: string[] = [];
    let told = 0;
    for (const query of queries) {
      const names = [...query.matchAll(/\b(?:people|http|nodejs|process)_\w+/g)].map(([name]) => name);
      const isThere = names.every(isTold);
      // What has a label of its own may not have happened yet.
      const isAll = !/\{[^}]*\b(?!instance|job)\w+\s*(=|!)/.test(query);
      if ((await prometheus.query(query)).length > 0) told++;
      else if (isThere && isAll) silent.push(query);
    }
    expect(silent).toEqual([]);
    expect(told).toBeGreaterThan(queries.length / 2);
    expect((await prometheus.query('sum(up{job="people"})'))[0]!.value[1]).toBe('1');
  });

  it('has the alert pending of a database that is away, until it is back', async () => {
    expect(await stateOf('PeopleDatabaseAway')).toBe('inactive');
    await proxy.refuse();
    await eventually(async () => (await stateOf('PeopleDatabaseAway')) === 'pending', 30_000);
    await proxy.accept();
    await eventually(async () => (await stateOf('PeopleDatabaseAway')) === 'inactive', 30_000);
  });
});
