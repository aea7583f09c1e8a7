import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { finished } from 'node:stream';
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

/** What is to be done when a connection ends: one listener for however many answers wait on it. */
const onEnd = new WeakMap<Socket, Set<() => void>>();

/** Calls `done` when a response of Express or Fastify is sent, or nobody is there to read it. */
function whenOver(response: unknown, done: () => void): void {
  const { raw = response } = response as { raw?: unknown };
  const { req } = raw as ServerResponse;
  // An answer that waits behind others of its connection is not told when that ends.
  const waiting = listenersOf(req.socket);
  const end = () => {
    waiting.delete(end);
    done();
  };
  waiting.add(end);
  finished(raw as ServerResponse, end);
  if (req.socket.destroyed) end();
}

function listenersOf(socket: Socket): Set<() => void> {
  let listeners = onEnd.get(socket);
  if (!listeners) {
    const added = new Set<() => void>();
    onEnd.set(socket, (listeners = added));
    socket.once('close', () => added.forEach((end) => end()));
  }
  return listeners;
}
