/** Runs `use`, and then closes what it has added, the latest first, whatever became of it. */
export async function withClosers<T>(use: (closers: (() => Promise<unknown>)[]) => Promise<T>): Promise<T> {
  const closers: (() => Promise<unknown>)[] = [];
  try {
    return await use(closers);
  } finally {
    for (const close of closers.reverse()) await close();
  }
}
