/** The middle one; of an even number the mean of both. */
export function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
}

/**
 * One table in Markdown: a row a contestant, the first of which is the base, and two columns an operation.
 *
 * @param turns contestant → operation → one `{ perSecond, operations, nodeMicros, postgresMicros }` a round
 */
export function toTable(title, contestants, operations, turns) {
  const head = operations.flatMap((operation) => [`${operation} ÷ base`, `CPU µs/${operation}`]);
  const [base] = contestants;
  const rows = contestants.map((contestant) => [
    contestant === base ? `${contestant.title} (base)` : contestant.title,
    ...operations.flatMap((operation) => {
      const own = turns.get(contestant)[operation];
      const isBase = contestant === base;
      return [isBase ? '1.00' : ratio(own, turns.get(base)[operation]), cpu(own)];
    }),
  ]);
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const rule = ['---', ...head.map(() => '---:')];
  return [`### ${title}`, '', line(['', ...head]), line(rule), ...rows.map(line)].join('\n');
}

/** Median and range of the ratios, each of two turns of the same round. */
function ratio(own, base) {
  const ratios = own.map(({ perSecond }, round) => perSecond / base[round].perSecond);
  return spread(ratios);
}

/** Median and range. */
export const spread = (numbers) =>
  `**${median(numbers).toFixed(2)}** (${Math.min(...numbers).toFixed(2)}..${Math.max(...numbers).toFixed(2)})`;

/** Over all rounds at once: PostgreSQL's time comes in ticks of 10 ms, too coarse for one turn. */
function cpu(turns) {
  const sum = (key) => turns.reduce((total, turn) => total + turn[key], 0);
  const perOperation = (key) => (sum(key) / sum('operations')).toFixed(0);
  const postgres = perOperation('postgresMicros');
  return postgres === 'NaN' ? perOperation('nodeMicros') : `${perOperation('nodeMicros')} + ${postgres}`;
}
