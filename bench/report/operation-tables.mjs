import { ratioOf, showCpu, showRatio, toTable } from '../harness/ratios.mjs';

const MANY = 32;

/** Each operation with many callers at once, then with one. */
export const heatsOf = (operations) =>
  [MANY, 1].flatMap((callers) =>
    operations.map((operation) => ({ key: `${operation}-${callers}`, operation, callers })),
  );

/** A table for each number of callers: a row a contestant, the first of which is the base, two columns an operation. */
export function operationTables({ contestants, turns }, { operations, many, one }) {
  const [base] = contestants;
  const cells = ({ key }, heat) => {
    const perSecond = (contestant) => turns[contestant][heat].map((each) => each.perSecond);
    const ratio = key === base.key ? '1.00' : showRatio(ratioOf(perSecond(key), perSecond(base.key)));
    return [ratio, showCpu(turns[key][heat])];
  };
  const table = (callers) =>
    toTable(
      ['', ...operations.flatMap((operation) => [operation, 'CPU µs'])],
      contestants.map((contestant) => [
        named(contestant),
        ...operations.flatMap((operation) => cells(contestant, `${operation}-${callers}`)),
      ]),
    );
  return [`#### ${many}`, table(MANY), `#### ${one}`, table(1)].join('\n\n');
}

/** As a row's first cell: with what it does to a number. */
export const named = ({ title, note }) => (note ? `${title} — **${note}**` : title);
