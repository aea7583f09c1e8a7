/** What is worked through in one go, in bytes of input: about a millisecond's worth. */
export const BATCH_WORK = 16 * 1024;
/** What counts for an object beside its bytes: small ones cost more than their length. */
export const BESIDE = 200;

/** Says of an iterable that it can be gone through by batches. */
export const BATCHES = Symbol('BATCHES');

/** What can be gone through several at a time: those that are there already need no promise each. */
export interface InBatches<T> extends AsyncIterable<T> {
  /** Each batch is read as it is gone through, which is once and before the next is asked for. It may be empty. */
  [BATCHES](): AsyncIterableIterator<Iterable<T>>;
}

/** The batches of what can be gone through by them, of a list, which is one, and of anything else, where each comes alone. */
export function batchesOf<T>(many: Iterable<T> | AsyncIterable<T>): AsyncIterator<Iterable<T>> {
  if (BATCHES in many) return (many as InBatches<T>)[BATCHES]();
  return Symbol.asyncIterator in many ? eachAlone(many[Symbol.asyncIterator]()) : oneBatch(many);
}

/** What is in batches, one at a time. */
export async function* oneByOne<T>(batches: AsyncIterable<Iterable<T>>): AsyncGenerator<T> {
  for await (const batch of batches) yield* batch;
}

function eachAlone<T>(each: AsyncIterator<T>): AsyncIterator<Iterable<T>> {
  return {
    next: async () => {
      const next = await each.next();
      return next.done ? { done: true, value: undefined } : { value: [next.value] };
    },
    return: async () => {
      await each.return?.();
      return { done: true, value: undefined };
    },
  };
}

function oneBatch<T>(batch: Iterable<T>): AsyncIterator<Iterable<T>> {
  let isRead = false;
  return {
    next: () => {
      const wasRead = isRead;
      isRead = true;
      return Promise.resolve(wasRead ? { done: true, value: undefined } : { value: batch });
    },
  };
}
