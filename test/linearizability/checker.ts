import { describe, type Operation, type State, statesAfter } from './history.js';

/** Far more than a history takes that is in order. */
const MOST_STEPS = 2_000_000;
/** Operations that are shown around the one that fits nowhere. */
const SHOWN = 12;

/** @returns of each person whose history is not linearizable a sentence, with the operations around what fits nowhere */
export function violationsOf(history: readonly Operation[]): string[] {
  const byPerson = new Map<string, Operation[]>();
  for (const operation of history) {
    const own = byPerson.get(operation.person);
    if (own) own.push(operation);
    else byPerson.set(operation.person, [operation]);
  }
  return [...byPerson.values()].flatMap((operations) => violationOf(operations) ?? []);
}

/**
 * Looks for an order in which the operations of one person could have been done one after the other, each between its call and its
 * answer, and answered as they were (Wing and Gong's search, which remembers where it has been, as Lowe's does). Persons
 * are registers of their own, so that each may be looked at alone.
 */
function violationOf(history: readonly Operation[]): string | undefined {
  const list = listOf(history);
  const seen = new Set<string>();
  /** What is taken as done, in order, with the state before each and which of the states after it was tried. */
  const done: { entry: Entry; before: State; choice: number }[] = [];
  let state: State = null;
  let taken = 0n;
  let deepest = { count: -1, stuckAt: history[0] };
  let entry = list.next;
  let choice = 0;
  for (let steps = 0; entry; steps++) {
    if (steps > MOST_STEPS) return `It took too long to look for an order of ${history.length} operations.`;
    if (!entry.isAnswer) {
      const after: State | undefined = statesAfter(state, entry.operation)[choice];
      const bits = taken | entry.bit;
      const key = `${bits.toString(36)} ${after}`;
      if (after === undefined) [entry, choice] = [entry.next, 0];
      else if (seen.has(key)) choice++;
      else {
        seen.add(key);
        done.push({ entry, before: state, choice });
        [state, taken] = [after, bits];
        lift(entry);
        [entry, choice] = [list.next, 0];
      }
      continue;
    }
    // Its answer has come, and it can't have been done yet: something before it was taken too early.
    if (done.length > deepest.count) deepest = { count: done.length, stuckAt: entry.operation };
    const last = done.pop();
    if (!last) return sentence(history, deepest.stuckAt!);
    unlift(last.entry);
    [state, taken] = [last.before, taken & ~last.entry.bit];
    [entry, choice] = [last.entry, last.choice + 1];
  }
  // Of what is left nobody knows whether it was done.
  return undefined;
}

/** A call or an answer, in the order in which they came. */
interface Entry {
  operation: Operation;
  isAnswer: boolean;
  bit: bigint;
  /** Of a call: its answer, where there is one. */
  answer: Entry | undefined;
  previous: Entry | undefined;
  next: Entry | undefined;
}

function listOf(history: readonly Operation[]): Pick<Entry, 'next'> {
  const entries = history.flatMap((operation, index) => {
    const parts = { operation, bit: 1n << BigInt(index), previous: undefined, next: undefined };
    const answer: Entry | undefined =
      operation.answeredAt === Infinity ? undefined : { ...parts, isAnswer: true, answer: undefined };
    const call: Entry = { ...parts, isAnswer: false, answer };
    return answer ? [call, answer] : [call];
  });
  const at = ({ isAnswer, operation }: Entry) => (isAnswer ? operation.answeredAt : operation.calledAt);
  // Of the same moment calls come first: they may overlap.
  entries.sort((a, b) => at(a) - at(b) || Number(a.isAnswer) - Number(b.isAnswer));
  const head = {} as Entry;
  let last = head;
  for (const entry of entries) {
    entry.previous = last;
    last.next = entry;
    last = entry;
  }
  return head;
}

function lift(call: Entry): void {
  for (const entry of call.answer ? [call, call.answer] : [call]) {
    entry.previous!.next = entry.next;
    if (entry.next) entry.next.previous = entry.previous;
  }
}

function unlift(call: Entry): void {
  for (const entry of call.answer ? [call.answer, call] : [call]) {
    entry.previous!.next = entry;
    if (entry.next) entry.next.previous = entry;
  }
}

function sentence(history: readonly Operation[], stuckAt: Operation): string {
  const inOrder = history.toSorted((a, b) => a.calledAt - b.calledAt);
  const at = inOrder.indexOf(stuckAt);
  const around = inOrder.slice(Math.max(0, at - SHOWN), at + SHOWN);
  return [
    `no order of the operations of one person gives the answers that were given; it ends at: ${describe(stuckAt)}`,
    ...around.map((operation) => `${operation === stuckAt ? '  > ' : '    '}${describe(operation)}`),
  ].join('\n');
}
