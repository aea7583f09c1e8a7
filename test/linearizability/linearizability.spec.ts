import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { violationsOf } from './checker.js';
import { type Call, type Operation, type Outcome, withLostAnswers } from './history.js';
import { checkLinearizability } from './linearizability-check.js';

describe('a history of one person', () => {
  const person = '00000000-0000-4000-8000-000000000000';
  /** From, to: for a call that nobody knows the end of, undefined. */
  const op = (from: number, to: number | undefined, call: Call, outcome: Outcome): Operation => ({
    ...{ person, call, outcome, calledAt: from, answeredAt: to ?? Infinity, client: 'somebody' },
  });
  const create = (from: number, to: number | undefined, name: string) =>
    op(from, to, { kind: 'create', name }, { is: to === undefined ? 'unknown' : 'done' });
  const update = (from: number, to: number | undefined, name: string, over?: string) =>
    op(from, to, { kind: 'update', name, over }, { is: to === undefined ? 'unknown' : 'done' });
  const remove = (from: number, to: number | undefined) =>
    op(from, to, { kind: 'remove' }, { is: to === undefined ? 'unknown' : 'done' });
  const get = (from: number, to: number, name: string | null) =>
    op(from, to, { kind: 'get' }, name === null ? { is: 'missing' } : { is: 'found', name });

  const possible: Record<string, Operation[]> = {
    'in which one thing follows the other': [
      create(0, 1, 'a'),
      get(2, 3, 'a'),
      update(4, 5, 'b'),
      get(6, 7, 'b'),
    ],
    'in which reads beside a write see it or not': [
      create(0, 1, 'a'),
      update(2, 9, 'b'),
      get(3, 4, 'a'),
      get(5, 6, 'b'),
    ],
    'in which of two writes over one version one is refused': [
      create(0, 1, 'a'),
      update(2, 9, 'b', 'a'),
      op(2, 9, { kind: 'update', name: 'c', over: 'a' }, { is: 'changed' }),
    ],
    'in which something unknown was never done': [
      create(0, 1, 'a'),
      update(2, undefined, 'b'),
      get(3, 4, 'a'),
      get(50, 60, 'a'),
    ],
    'in which something unknown was done much later': [
      create(0, 1, 'a'),
      update(2, undefined, 'b'),
      get(3, 4, 'a'),
      get(50, 60, 'b'),
    ],
    'in which a person is removed and created anew': [
      create(0, 1, 'a'),
      remove(2, 3),
      get(4, 5, null),
      create(6, 7, 'b'),
      get(8, 9, 'b'),
    ],
    'in which calls of the same moment are answered in any order': Array.from({ length: 8 }, (_, n) =>
      n === 7 ? create(0, 1, 'g0') : update(0, 9, `g${n + 1}`),
    ),
  };
  it.each(Object.keys(possible))('%s, is one that a register could have', (name) => {
    expect(violationsOf(possible[name]!)).toEqual([]);
  });

  it('in which answers of the database were lost may have a create done again, and a remove that another one did', () => {
    const again = [
      create(0, 9, 'a'),
      get(1, 2, 'a'),
      remove(3, 4),
      remove(3, 9),
      get(5, 6, null),
      get(7, 8, 'a'),
    ];
    expect(violationsOf(again)).toHaveLength(1);
    expect(violationsOf(withLostAnswers(again))).toEqual([]);
    const tooLate = [create(0, 1, 'a'), remove(3, 4), get(5, 6, null), get(7, 8, 'a')];
    expect(violationsOf(withLostAnswers(tooLate))).toHaveLength(1);
  });

  const impossible: Record<string, Operation[]> = {
    'in which a read misses a write that was answered before': [
      create(0, 1, 'a'),
      update(2, 3, 'b'),
      get(4, 5, 'a'),
    ],
    'in which a read goes back behind another read': [
      create(0, 1, 'a'),
      update(2, 9, 'b'),
      get(3, 4, 'b'),
      get(5, 6, 'a'),
    ],
    'in which two writes go over one version': [
      create(0, 1, 'a'),
      update(2, 9, 'b', 'a'),
      update(2, 9, 'c', 'a'),
    ],
    'in which something unknown comes and goes': [
      create(0, 1, 'a'),
      update(2, undefined, 'b'),
      get(3, 4, 'b'),
      get(5, 6, 'a'),
    ],
    'in which something is seen that nobody wrote': [create(0, 1, 'a'), get(2, 3, 'x')],
    'in which a removed person is there': [create(0, 1, 'a'), remove(2, 3), get(4, 5, 'a')],
    'in which a person is missing that was created': [create(0, 1, 'a'), get(2, 3, null)],
    'in which a write is refused though its version was the last': [
      create(0, 1, 'a'),
      op(2, 3, { kind: 'update', name: 'b', over: 'a' }, { is: 'changed' }),
    ],
    'in which an id is taken that is free': [op(0, 1, { kind: 'create', name: 'a' }, { is: 'taken' })],
  };
  it.each(Object.keys(impossible))('%s, is a violation', (name) => {
    expect(violationsOf(impossible[name]!)).toHaveLength(1);
  });
});

describe('people that are written and read through several processes at once', () => {
  let directory: string;
  beforeEach(() => {
    mkdirSync('.data', { recursive: true });
    directory = mkdtempSync(path.resolve('.data/linearizability-'));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it('answer as registers do, while processes and sessions are killed and answers are lost', async () => {
    const counts = await checkLinearizability({
      seed: 31,
      seconds: 10,
      instances: 2,
      directory,
      hasFaults: true,
    });
    expect(counts.violations).toEqual([]);
    expect(counts.instancesKilled).toBeGreaterThan(0);
    expect(counts.backendsKilled).toBeGreaterThan(3);
    expect(counts.overlapping).toBeGreaterThan(50);
    expect(counts.calls.answered).toBeGreaterThan(50);
    expect(counts.calls.refused).toBeGreaterThan(20);
  }, 180_000);

  it('are seen not to, where a client is shown what it had seen before its own write', async () => {
    const options = { seed: 32, seconds: 6, instances: 1, directory, hasFaults: false };
    const counts = await checkLinearizability({ ...options, showsStale: true });
    expect(counts.violations.length).toBeGreaterThan(0);
    expect(counts.violations[0]).toContain('no order of the operations');
  }, 180_000);
});
