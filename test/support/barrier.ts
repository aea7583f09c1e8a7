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

/** Polls until `condition` holds; fails the test after ten seconds. For what happens in another process. */
export async function eventually<T>(
  condition: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error('The condition did not come true in ten seconds.');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
