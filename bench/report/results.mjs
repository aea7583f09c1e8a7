import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { goalTable } from './goals.mjs';
import { drawPicture } from './picture.mjs';

const HERE = path.join(import.meta.dirname, '..');
const FIGURES = path.join(HERE, 'results.json');
const TABLES = path.join(HERE, 'results.md');
const PICTURE = path.join(HERE, '../docs/bench.svg');

/** The figures of each section's last run. */
export const readResults = () => (existsSync(FIGURES) ? JSON.parse(readFileSync(FIGURES, 'utf8')) : {});

/** Figures, tables and the picture, of all sections that have figures. */
export function writeResults(results, sections) {
  writeFileSync(FIGURES, `${JSON.stringify(results, (_, value) => rounded(value))}\n`);
  writeFileSync(TABLES, `${toMarkdown(results, sections)}\n`);
  writeFileSync(PICTURE, drawPicture(results));
}

const rounded = (value) => (typeof value === 'number' ? Number(value.toPrecision(5)) : value);

const LEGEND = [
  'Written by `npm run bench`; [README.md](README.md) says what is measured and how far to trust it.',
  '',
  'A cell is the ratio of the medians of operations per second, ÷ those of the first row, in brackets the lowest and the highest ratio within',
  'one round. CPU: µs of one operation, the contestant’s own + PostgreSQL’s.',
].join('\n');

/** @param sections name → module, in the order they are shown */
export function toMarkdown(results, sections) {
  const parts = Object.entries(sections)
    .filter(([name]) => results[name])
    .map(([name, section]) => sectionOf(section, results[name]));
  return ['# Results', LEGEND, '## Goals', goalTable(results), ...parts].join('\n\n');
}

function sectionOf({ title, render }, result) {
  const { where, about, leftOut, contestants } = result;
  const told = [where.versions, ...contestants.map(({ version }) => version).filter(Boolean)];
  const versions = [...new Set(told.flatMap((list) => list.split(', ')))].join(', ');
  return [
    `## ${title}`,
    [...about, `${where.date}, commit ${where.commit}; ${where.machine}; ${versions}.`].join('\n'),
    render(result),
    ...leftOut.map(({ title: name, reason }) => `Left out: ${name}, as ${reason}.`),
  ].join('\n\n');
}
