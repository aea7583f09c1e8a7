const expected = new WeakSet<object>();

/** From now on nobody reports `error`: it is how somebody further out learns what it asked for. */
export function expectError(error: unknown): void {
  if (isObject(error)) expected.add(error);
}

/** True for an error that was named to `expectError`, also as TypeORM wraps it. */
export const isExpected = (error: unknown): boolean =>
  isObject(error) && (expected.has(error) || isExpected((error as { driverError?: unknown }).driverError));

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;
