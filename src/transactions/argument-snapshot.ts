import { TransactionUsageError } from './transaction-errors.js';

/** Enough for any body; a graph that is larger is something else that happens to be an argument. */
const OBJECTS_AT_MOST = 100_000;

type Restore = () => void;

/**
 * Remembers what `roots` hold, and returns what puts it back: an attempt that failed must not hand its changes on to the
 * next. Objects stay the same objects, so that what the last attempt does to them reaches the caller.
 *
 * Plain objects, arrays, Maps, Sets, Dates and the own properties of other objects are put back; bytes, streams, private
 * fields and what hides behind accessors are left as they are.
 *
 * @throws TransactionUsageError more than 100,000 objects
 */
export function snapshot(roots: readonly unknown[]): Restore {
  const seen = new Set<object>();
  const restores: Restore[] = [];
  const rest: unknown[] = [...roots];
  while (rest.length > 0) {
    const value = rest.pop();
    if (typeof value !== 'object' || value === null || seen.has(value) || isOpaque(value)) continue;
    seen.add(value);
    if (seen.size > OBJECTS_AT_MOST)
      throw new TransactionUsageError(
        `The arguments hold more than ${OBJECTS_AT_MOST} objects and could not be put back for another attempt: pass less, or allow one attempt only (maxAttempts: 1).`,
      );
    restores.push(remember(value, rest));
  }
  return () => {
    for (const restore of restores) restore();
  };
}

function remember(value: object, rest: unknown[]): Restore {
  if (Array.isArray(value)) {
    const items = [...(value as unknown[])];
    rest.push(...items);
    // It can't have changed, but what it holds can.
    if (Object.isFrozen(value)) return () => undefined;
    return () => void value.splice(0, value.length, ...items);
  }
  if (value instanceof Map) {
    const entries = [...(value as Map<unknown, unknown>)];
    for (const [key, item] of entries) rest.push(key, item);
    return () => refill(value, () => entries.forEach(([key, item]) => value.set(key, item)));
  }
  if (value instanceof Set) {
    const items = [...(value as Set<unknown>)];
    rest.push(...items);
    return () => refill(value, () => items.forEach((item) => value.add(item)));
  }
  if (value instanceof Date) {
    const time = value.getTime();
    return () => void value.setTime(time);
  }
  const properties = Object.entries(Object.getOwnPropertyDescriptors(value));
  rest.push(...properties.map(([, descriptor]): unknown => descriptor.value));
  return () => restoreProperties(value, new Map(properties));
}

function refill(collection: { clear: () => void }, fill: () => void): void {
  collection.clear();
  fill();
}

function restoreProperties(value: object, properties: Map<string, PropertyDescriptor>): void {
  for (const name of Object.keys(value)) {
    if (!properties.has(name)) Reflect.deleteProperty(value, name);
  }
  for (const [name, descriptor] of properties) {
    // What hides behind an accessor is left as it is.
    if ('value' in descriptor && Reflect.get(value, name) !== descriptor.value)
      Reflect.defineProperty(value, name, descriptor);
  }
}

/** What has a life of its own (streams, emitters, promises, connections), or bytes, which nobody edits in place. */
function isOpaque(value: object): boolean {
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return true;
  if (
    value instanceof Promise ||
    value instanceof WeakMap ||
    value instanceof WeakSet ||
    value instanceof Error
  )
    return true;
  return ['on', 'then', 'subscribe', 'createQueryBuilder', 'query'].some(
    (method) => typeof (value as Record<string, unknown>)[method] === 'function',
  );
}
