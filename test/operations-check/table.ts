import type { Report } from './operations-check.js';

const SHOWN = 4;
const WIDTH = 150;

/** The report, for a terminal. */
export function tableOf({ rows, leftOut, violations }: Report): string {
  const numbers = rows.map(({ fault, requests, ...row }) => ({
    fault,
    'requests done': requests.done,
    refused: requests.refused,
    unknown: requests.unknown,
    failed: row.failed,
    messages: row.messages,
    lost: row.lost,
    doubled: row.doubled,
    'false "unchanged"': row.falselyRefused,
  }));
  const told = rows.flatMap(({ fault, metrics, alerts, lines }) => [
    '',
    fault,
    ...some('metric', metrics),
    ...some('alert', alerts),
    ...some('line', lines),
  ]);
  return [
    ...columns(numbers),
    ...told,
    '',
    ...leftOut.map((name) => `left out, as it can't be made here: ${name}`),
    `violations: ${violations.length}`,
    ...violations,
  ].join('\n');
}

function some(what: string, all: readonly string[]): string[] {
  if (all.length === 0) return [`  no ${what}`];
  const more = all.length > SHOWN ? [`  … and ${all.length - SHOWN} more`] : [];
  return [...all.slice(0, SHOWN).map((each) => `  ${what.padEnd(6)} ${each.slice(0, WIDTH)}`), ...more];
}

function columns(rows: readonly Record<string, string | number>[]): string[] {
  const names = Object.keys(rows[0] ?? {});
  const texts = [names, ...rows.map((row) => names.map((name) => String(row[name])))];
  const widths = names.map((_, column) => Math.max(...texts.map((text) => text[column]!.length)));
  return texts.map((text) => text.map((each, column) => each.padEnd(widths[column]!)).join('  '));
}
