import { whenOver } from '../../http/answer-end.js';
import { type ByteBudget, type ByteShare, FREE_BYTES, MemoryBudgetExhaustedError } from '../byte-budget.js';

/**
 * Counts an answer in the budget until it is sent, or its reader is gone.
 *
 * @returns the answer
 * @throws MemoryBudgetExhaustedError there is no room for it
 */
export function holdUntilSent(budget: ByteBudget, response: unknown, answer: string): string {
  return hold(budget, response, answer, (share, bytes) => share.growNow(bytes));
}

/**
 * The same for the answer of a write: that is done and can't be refused any more, so that it counts also where there is no room.
 *
 * @returns the answer
 */
export function holdWritten(budget: ByteBudget, response: unknown, answer: string): string {
  return hold(budget, response, answer, (share, bytes) => share.growAnyway(bytes));
}

function hold(
  budget: ByteBudget,
  response: unknown,
  answer: string,
  take: (share: ByteShare, bytes: number) => void,
): string {
  // A character of a string is three bytes at most.
  if (answer.length <= FREE_BYTES / 3) return answer;
  const share = budget.open();
  take(share, Buffer.byteLength(answer));
  whenOver(response, () => share.close());
  return answer;
}

/**
 * Refuses to begin a write while such answers, which can't be refused, take as much again as the budget. Until then writes go on, as
 * most of their answers are small.
 *
 * @throws MemoryBudgetExhaustedError
 */
export function assertRoomToWrite(budget: ByteBudget): void {
  if (budget.used > 2 * budget.limit) throw new MemoryBudgetExhaustedError();
}

/**
 * Takes room for what an answer holds at a time, until it is over.
 *
 * @throws MemoryBudgetExhaustedError there was no room in time
 */
export async function roomUntilSent(budget: ByteBudget, response: unknown, bytes: number): Promise<void> {
  const share = budget.open();
  whenOver(response, () => share.close());
  await share.grow(FREE_BYTES + bytes);
}
