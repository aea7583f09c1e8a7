/** The middle one; of an even number the mean of both. */
export function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
}

/** The ratio of the medians, and the lowest and highest of the ratios within one round. */
export function ratioOf(own, base) {
  const ratios = own.map((value, round) => value / base[round]);
  return { value: median(own) / median(base), from: Math.min(...ratios), to: Math.max(...ratios) };
}

/** As a cell of a table. */
export const showRatio = ({ value, from, to }) =>
  `**${value.toFixed(2)}** (${from.toFixed(2)}..${to.toFixed(2)})`;

/** Median and range of numbers that are ratios already. */
export const spread = (numbers) =>
  showRatio({ value: median(numbers), from: Math.min(...numbers), to: Math.max(...numbers) });

/** A table in Markdown: the first column is text, the others are numbers. */
export function toTable(head, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(head), line(['---', ...head.slice(1).map(() => '---:')]), ...rows.map(line)].join('\n');
}

/** CPU time of one operation over all rounds at once: it comes in ticks of 10 ms, too coarse for one turn. */
export function showCpu(turns) {
  const perOperation = (key) => {
    if (!turns.every((turn) => Number.isFinite(turn[key]))) return '–';
    const sum = (what) => turns.reduce((total, turn) => total + turn[what], 0);
    return sum('operations') > 0 ? (sum(key) / sum('operations')).toFixed(0) : '–';
  };
  return `${perOperation('ownMicros')} + ${perOperation('postgresMicros')}`;
}
