import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

interface Measured {
  parser: string;
  shape: string;
  counted: { size: number; steps: number }[];
}

/** Steps that any call takes, whatever its size. */
const CONSTANT = 2000;
const TOLERANCE = 1.3;

/** How many times as much work the largest input takes, for each time that it is larger than the smallest; 1 is linear. */
function growth({ counted }: Measured): number {
  const [smallest, largest] = [counted[0]!, counted.at(-1)!];
  return largest.steps / (smallest.steps + CONSTANT) / (largest.size / smallest.size);
}

describe('the work of every parser, counted in steps,', () => {
  let measured: Measured[];

  beforeAll(async () => {
    const { stdout } = await promisify(execFile)(process.execPath, ['test/security/work-of-parsers.mjs'], {
      maxBuffer: 64 * 1024 * 1024,
    });
    measured = stdout.split('\n').filter(Boolean).map((line) => JSON.parse(line) as Measured); // prettier-ignore
  }, 300_000);

  it('is seen: no parser goes through its inputs without a step', () => {
    const parsers = new Set(measured.map(({ parser }) => parser));
    const seen = measured.filter(({ counted }) => counted.at(-1)!.steps > 0).map(({ parser }) => parser);
    expect([...parsers].filter((parser) => !seen.includes(parser))).toEqual([]);
    expect(parsers.size).toBeGreaterThan(25);
  });

  it('is told from that of a quadratic one', () => {
    expect(measured.filter(({ parser }) => parser === 'quadratic').map(growth)[0]).toBeGreaterThan(2);
  });

  it('grows with the size of what came in, and no faster, whatever its shape', () => {
    const others = measured.filter(({ parser }) => parser !== 'quadratic');
    expect(others.filter((one) => growth(one) > TOLERANCE)).toEqual([]);
  });
});
