/** Resolves for all once `parties` have arrived: each is then known to be at the same point. */
export function barrier(parties: number): () => Promise<void> {
  let open!: () => void;
  const all = new Promise<void>((resolve) => (open = resolve));
  let arrived = 0;
  return () => {
    if (++arrived >= parties) open();
    return all;
  };
}

/** Polls until `condition` holds; fails the test after `atMostMs`. For what happens in another process. */
export async function eventually<T>(
  condition: () => T | undefined | false | Promise<T | undefined | false>,
  atMostMs = 10_000,
): Promise<T> {
  const deadline = Date.now() + atMostMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`The condition did not come true in ${atMostMs} ms.`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
