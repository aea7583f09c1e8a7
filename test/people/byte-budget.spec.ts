import { ByteBudget, FREE_BYTES, MemoryBudgetExhaustedError } from '../../src/people/byte-budget.js';

const LIMIT = 1000;
const WAIT_MS = 50;

it('a small request is not counted, also where the budget is used up', async () => {
  const budget = new ByteBudget(LIMIT, WAIT_MS);
  await budget.open().grow(FREE_BYTES + LIMIT);
  const small = budget.open();
  await small.grow(FREE_BYTES);
  expect(budget.used).toBe(LIMIT);
  await expect(small.grow(1)).rejects.toThrow(MemoryBudgetExhaustedError);
  expect(() => small.growNow(1)).toThrow(MemoryBudgetExhaustedError);
});

it('who waits is admitted in turn, once others have given back', async () => {
  const budget = new ByteBudget(LIMIT, 10_000);
  const [first, second, third] = [budget.open(), budget.open(), budget.open()];
  await first.grow(FREE_BYTES + LIMIT);
  const admitted: string[] = [];
  const waiting = [
    second.grow(FREE_BYTES + 900).then(() => admitted.push('second')),
    third.grow(FREE_BYTES + 100).then(() => admitted.push('third')),
  ];
  first.close();
  await Promise.all(waiting);
  expect(admitted).toEqual(['second', 'third']);
  expect(budget.used).toBe(LIMIT);
  second.close();
  second.close();
  third.close();
  expect(budget.used).toBe(0);
});

it('one that is larger than the whole budget goes on alone', async () => {
  const budget = new ByteBudget(LIMIT, WAIT_MS);
  const large = budget.open();
  await large.grow(FREE_BYTES + 5 * LIMIT);
  await expect(budget.open().grow(FREE_BYTES + 1)).rejects.toThrow(MemoryBudgetExhaustedError);
  large.close();
  expect(budget.used).toBe(0);
});

it('a request that ends while it waits keeps nothing', async () => {
  const budget = new ByteBudget(LIMIT, 10_000);
  const [first, second, third] = [budget.open(), budget.open(), budget.open()];
  await first.grow(FREE_BYTES + LIMIT);
  const leaves = new AbortController();
  const left = second.grow(FREE_BYTES + LIMIT, leaves.signal);
  const behind = third.grow(FREE_BYTES + 1);
  leaves.abort(new Error('left'));
  await expect(left).rejects.toThrow('left');
  third.close();
  first.close();
  await behind;
  expect(budget.used).toBe(0);
});
