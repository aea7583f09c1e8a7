type Endable = { close(): unknown } | { stop(): unknown } | { drop(): unknown };

/** What runs, by the order of its start. */
const running: { end: () => unknown }[] = [];

/**
 * Starts something before the tests of the file or the `describe` that this is called in, and ends it behind them. Of several
 * the last that was started is ended first.
 *
 * @returns what `start` gives; to be used by what runs meanwhile
 */
export function duringTests<T extends Endable>(start: () => T | Promise<T>, timeoutMs?: number): T {
  let started: T;
  beforeAll(async () => {
    const own: (typeof running)[number] = { end: () => undefined };
    running.push(own);
    started = await start();
    own.end = () =>
      'close' in started ? started.close() : 'stop' in started ? started.stop() : started.drop();
  }, timeoutMs);
  afterAll(async () => {
    await running.pop()!.end();
  });
  return new Proxy({} as T, {
    get: (_, key) => {
      const value: unknown = Reflect.get(started, key);
      return typeof value === 'function' ? (value.bind(started) as unknown) : value;
    },
    set: (_, key, value) => Reflect.set(started, key, value),
  });
}
