import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { openLoad } from '../harness/load.mjs';
import { openPostgres } from '../harness/servers.mjs';
import { whereAndWhen } from '../harness/versions.mjs';
import * as clients from '../scale/clients.mjs';
import * as instances from '../scale/instances.mjs';
import * as rows from '../scale/rows.mjs';

const PARTS = { rows, clients, instances };
const PAGE = path.join(import.meta.dirname, '../scale.md');
const FIGURES = path.join(import.meta.dirname, '../scale.json');

const LEGEND = [
  'Written by `npm run bench:scale`; [README.md](README.md) says what is measured. Load, services, PostgreSQL and Kafka share the machine that',
  'is named below, so operations per second say little about another one. Ratios, and still more the CPU time of one operation, are the',
  'steadier witnesses when other work runs beside it. In brackets are the lowest and the highest ratio within one round.',
].join('\n');

/** How far one instance goes, and several: with more rows, with more clients, with more instances. */
export async function run(bench) {
  const { only, isQuick } = bench.options;
  const postgres = await openPostgres(bench);
  const load = await openLoad(bench);
  const results = isQuick || !existsSync(FIGURES) ? {} : JSON.parse(readFileSync(FIGURES, 'utf8'));
  for (const [name, part] of Object.entries(PARTS)) {
    if (only && !only.includes(name)) continue;
    bench.say(`${name}:`);
    const figures = await part.run(bench, { postgres, load });
    results[name] = { where: { ...whereAndWhen(), postgres: postgres.version }, ...figures };
    // What is measured is kept whatever becomes of the next part.
    if (!isQuick) write(results);
  }
  console.log(toMarkdown(results));
  if (!isQuick) bench.say('bench/scale.md has the figures, of other parts those of their last run.');
}

function write(results) {
  const rounded = (_, value) => (typeof value === 'number' ? Number(value.toPrecision(6)) : value);
  writeFileSync(FIGURES, `${JSON.stringify(results, rounded)}\n`);
  writeFileSync(PAGE, `${toMarkdown(results)}\n`);
}

function toMarkdown(results) {
  const parts = Object.entries(PARTS)
    .filter(([name]) => results[name])
    .flatMap(([name, { title, render }]) => {
      const { where, about, ...figures } = results[name];
      const { date, commit, machine, versions, postgres } = where;
      const server = `PostgreSQL ${postgres} with its default settings (128 MB of shared buffers)`;
      return [
        `## ${title}`,
        `${about}\n${date}, commit ${commit}; ${machine}; ${versions}; ${server}.`,
        render(figures),
      ];
    });
  return ['# Scale', LEGEND, ...parts].join('\n\n');
}
