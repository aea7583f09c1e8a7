import { median, ratioOf, showCpu, showRatio, toTable } from '../harness/ratios.mjs';
import { OPERATIONS } from './rows-operations.mjs';

/** A column a size; the first is what the others are compared with. */
export function renderRows({ sizes, turns }) {
  const [base] = sizes;
  const head = ['', ...sizes.map(({ rows }) => rows.toLocaleString('en'))];
  const rowsOf = (operations, cell) =>
    operations.map((operation) => [operation.title, ...sizes.map((size) => cell(size, operation))]);
  const perSecond = ({ key }, operation) => turns[key][operation.key].map((turn) => turn.perSecond);
  const wal = ({ key }, operation) =>
    median(turns[key][operation.key].map(({ walBytes, operations }) => walBytes / operations)).toFixed(0);
  const ratio = (size, operation) => {
    if (size === base) return '1.00';
    return showRatio(ratioOf(perSecond(size, operation), perSecond(base, operation)));
  };
  const { operations } = base.buffers;
  return [
    `Operations per second ÷ those of the smallest table:`,
    toTable(head, rowsOf(OPERATIONS, ratio)),
    `CPU µs of one operation, the service’s + PostgreSQL’s:`,
    toTable(
      head,
      rowsOf(OPERATIONS, ({ key }, operation) => showCpu(turns[key][operation.key])),
    ),
    `PostgreSQL’s buffers (8 KiB) that one operation looks at, without sharing, and how many of them were not among its shared buffers:`,
    toTable(
      head,
      operations.map((name, index) => [
        name,
        ...sizes.map(
          ({ buffers }) => `${buffers.touched[index].toFixed(1)} / ${buffers.read[index].toFixed(1)}`,
        ),
      ]),
    ),
    `Bytes of log (WAL) for a new person, shortly after a checkpoint, when each page that is touched first is logged as a whole:`,
    toTable(
      head,
      rowsOf(
        OPERATIONS.filter(({ key }) => ['create', 'import'].includes(key)),
        wal,
      ),
    ),
    `Size with its indexes: ${sizes.map(({ rows, gibibytes }) => `${rows.toLocaleString('en')} rows ${gibibytes.toFixed(2)} GiB`).join(', ')}.`,
  ].join('\n\n');
}
