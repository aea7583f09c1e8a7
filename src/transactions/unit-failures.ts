import { AsyncLocalStorage } from 'node:async_hooks';
import { type MonoTypeOperatorFunction, tap } from 'rxjs';

/** A message that is handled. */
interface Call {
  /** What ended its last unit of work; undefined while none has failed, or one has succeeded since. */
  failure: unknown;
  /** What its handlers have thrown, by handler. */
  thrown: Map<unknown, unknown>;
}

/** Where the error of a call comes from, as far as it is known. */
export interface Origin {
  /** What the last unit of work of the call has failed with. */
  unit?: unknown;
  /** What the handler has thrown. */
  handler?: unknown;
  /** What a filter has given in place of the error. */
  given?: unknown;
}

const calls = new AsyncLocalStorage<Call>();
const origins = new WeakMap<object, Origin>();

/**
 * Runs a handler, and remembers what it and its unit of work failed with: Nest's filters, or the host's, make something else of it
 * before the transport sees it, and what becomes of a message must not depend on them. A handler that has failed has failed, also
 * where a filter gives a value in place of the error.
 *
 * @throws what `call` throws, or else what its handler threw; `originOf` knows where it comes from. What is no object is thrown as one
 */
export async function rememberingFailures<T>(call: () => Promise<T>): Promise<T> {
  const current: Call = { failure: undefined, thrown: new Map() };
  let value: T;
  try {
    value = await calls.run(current, call);
  } catch (error) {
    throw withOrigin(error, current);
  }
  const [thrown] = current.thrown.values();
  if (current.thrown.size > 0) throw withOrigin(thrown, current, value);
  return value;
}

function withOrigin(error: unknown, { failure, thrown }: Call, given?: unknown): unknown {
  const [handler] = thrown.values();
  if (failure === undefined && thrown.size === 0) return error;
  const object = Object(error ?? handler ?? failure) as object;
  origins.set(object, { unit: failure, handler, given });
  return object;
}

/** Says how a unit of work of the current call has ended. @param failure undefined: well */
export function noteFailure(failure: unknown): void {
  const call = calls.getStore();
  if (call) call.failure = failure;
}

/** For the values of a message's handler: says what it fails with, before any filter is asked. One that runs again has not failed yet. */
export function notingThrown<T>(handler: unknown): MonoTypeOperatorFunction<T> {
  const thrown = calls.getStore()?.thrown;
  return tap({
    subscribe: () => thrown?.delete(handler),
    error: (error: unknown) => thrown?.set(handler, error),
  });
}

/** Where a handler's error comes from; empty where that is not known. */
export const originOf = (error: unknown): Origin => origins.get(Object(error) as object) ?? {};
