/** What came of one fault. */
export interface Row {
  fault: string;
  requests: { done: number; refused: number; unknown: number };
  /** Where no request may fail: those that did. */
  failed: number;
  messages: number;
  lost: number;
  doubled: number;
  falselyRefused: number;
  /** What was told of what was not done, and how often. */
  refusals: string[];
  /** What told of it: series that stand still else, alerts that look at one of them, and lines of the log with their numbers. */
  metrics: string[];
  alerts: string[];
  lines: string[];
}

/** What came of all of them. */
export interface Report {
  /** The first is of no fault. */
  rows: Row[];
  /** Faults that can't be made here. */
  leftOut: string[];
  violations: string[];
}

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
  const told = rows
    .slice(1)
    .flatMap(({ fault, refusals, metrics, alerts, lines }) => [
      '',
      fault,
      ...some('refusal', refusals),
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
  return [...all.slice(0, SHOWN).map((each) => `  ${what.padEnd(7)} ${each.slice(0, WIDTH)}`), ...more];
}

function columns(rows: readonly Record<string, string | number>[]): string[] {
  const names = Object.keys(rows[0] ?? {});
  const texts = [names, ...rows.map((row) => names.map((name) => String(row[name])))];
  const widths = names.map((_, column) => Math.max(...texts.map((text) => text[column]!.length)));
  return texts.map((text) => text.map((each, column) => each.padEnd(widths[column]!)).join('  '));
}
