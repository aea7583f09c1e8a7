import { AsyncLocalStorage } from 'node:async_hooks';

/** What ended the last unit of work of a call; undefined while none has failed, or one has succeeded since. */
interface Call {
  failure: unknown;
}

const calls = new AsyncLocalStorage<Call>();
const origins = new WeakMap<object, unknown>();

/**
 * Runs a handler, and remembers what its unit of work failed with: Nest's filters, or the host's, make something else of it
 * before the transport sees it, and what becomes of a message must not depend on them.
 *
 * @throws what `call` throws; `originOf` knows where it comes from
 */
export async function rememberingFailures<T>(call: () => Promise<T>): Promise<T> {
  const current: Call = { failure: undefined };
  try {
    return await calls.run(current, call);
  } catch (error) {
    if (typeof error === 'object' && error !== null && current.failure !== undefined)
      origins.set(error, current.failure);
    throw error;
  }
}

/** Says how a unit of work of the current call has ended. @param failure undefined: well */
export function noteFailure(failure: unknown): void {
  const call = calls.getStore();
  if (call) call.failure = failure;
}

/** The failure of a unit of work that a handler's error comes from, where there is one. */
export const originOf = (error: unknown): unknown => origins.get(Object(error) as object);
