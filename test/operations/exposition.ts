/** One value of a family. */
export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** All that is exposed under one name. */
export interface Family {
  name: string;
  type: string;
  help: string;
  samples: Sample[];
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\n"])*)"(?:,|$)/y;
const SUFFIXES = { histogram: /_(bucket|sum|count)$/, summary: /_(sum|count)$/ };

/**
 * Reads Prometheus' text format 0.0.4 as strictly as `promtool check metrics`.
 *
 * @throws Error anything is not as the format or the conventions want it
 */
export function parseExposition(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('The last line has no end.');
  const families = new Map<string, Family>();
  let family: Family | undefined;
  for (const line of text.slice(0, -1).split('\n')) {
    if (line === '') continue;
    const [, keyword, name, rest] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
    if (keyword === 'HELP') {
      if (families.has(name!) || !NAME.test(name!)) throw new Error(`A second family, or no name: ${line}`);
      families.set(name!, (family = { name: name!, type: '', help: rest!, samples: [] }));
    } else if (keyword === 'TYPE') {
      if (family?.name !== name || family?.type) throw new Error(`TYPE is not behind its HELP: ${line}`);
      family!.type = rest!;
    } else if (line.startsWith('#')) throw new Error(`Neither HELP nor TYPE: ${line}`);
    else addTo(family, line);
  }
  for (const each of families.values()) check(each);
  return families;
}

function addTo(family: Family | undefined, line: string): void {
  const [, name, inner = '', number] = LINE.exec(line) ?? [];
  const value = number === '+Inf' ? Infinity : number === 'Nan' ? NaN : Number(number);
  if (!name || (Number.isNaN(value) && number !== 'Nan')) throw new Error(`No sample: ${line}`);
  const suffix = SUFFIXES[family?.type as keyof typeof SUFFIXES];
  const of = suffix && name !== family?.name ? name.replace(suffix, '') : name;
  if (of !== family?.name) throw new Error(`A sample that is of another family: ${line}`);
  family.samples.push({ name, labels: labelsOf(inner, line), value });
}

function labelsOf(inner: string, line: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (LABEL.lastIndex = 0; LABEL.lastIndex < inner.length;) {
    const [, label, value] = LABEL.exec(inner) ?? [];
    if (!label || label in labels) throw new Error(`Labels that can't be read: ${line}`);
    labels[label] = value!.replace(/\\(.)/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped));
  }
  return labels;
}

function check({ name, type, samples }: Family): void {
  if (!['counter', 'gauge', 'histogram', 'summary'].includes(type)) throw new Error(`${name}: no type`);
  const isTotal = name.endsWith('_total');
  // prom-client's own gauges of Node's resources are called so.
  if (type === 'counter' ? !isTotal : isTotal && !name.startsWith('nodejs_'))
    throw new Error(`${name}: a counter, and only it, ends with _total`);
  const series = samples.map((sample) => sample.name + JSON.stringify(Object.entries(sample.labels).sort()));
  if (new Set(series).size < series.length) throw new Error(`${name}: a series stands there twice`);
  if (type === 'counter' && samples.some(({ value }) => !(value >= 0)))
    throw new Error(`${name}: below nothing`);
  if (type === 'histogram') checkHistogram(name, samples);
}

function checkHistogram(name: string, samples: Sample[]): void {
  const groups = new Map<string, Sample[]>();
  for (const sample of samples) {
    const { le: _, ...labels } = sample.labels;
    const key = JSON.stringify(Object.entries(labels).sort());
    groups.set(key, [...(groups.get(key) ?? []), sample]);
  }
  for (const group of groups.values()) {
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    const bounds = buckets.map(({ labels }) => (labels.le === '+Inf' ? Infinity : Number(labels.le)));
    const counts = buckets.map(({ value }) => value);
    const isAscending = (numbers: number[]) =>
      numbers.every((each, at) => at === 0 || each >= numbers[at - 1]!);
    const count = group.find((sample) => sample.name === `${name}_count`)?.value;
    const hasSum = group.some((sample) => sample.name === `${name}_sum`);
    if (
      !isAscending(bounds) ||
      !isAscending(counts) ||
      bounds.at(-1) !== Infinity ||
      counts.at(-1) !== count ||
      !hasSum
    )
      throw new Error(`${name}: buckets, sum and count do not fit`);
  }
}

/** Adds up the samples of a family that have these labels; undefined where there is none. */
export function valueOf(
  families: Map<string, Family>,
  name: string,
  labels: Record<string, string> = {},
): number | undefined {
  const family = families.get(name) ?? families.get(name.replace(/_(bucket|sum|count)$/, ''));
  const fitting = family?.samples.filter(
    (sample) =>
      sample.name === name &&
      Object.entries(labels).every(([label, value]) => sample.labels[label] === value),
  );
  return fitting?.length ? fitting.reduce((sum, { value }) => sum + value, 0) : undefined;
}
