/** pg takes one statement of a connection at a time; what comes meanwhile waits here, where it can still be refused. */
export class StatementTurns {
  private unfinished = 0;
  private last: Promise<void> = Promise.resolve();

  /** True while something has its turn or waits for it. */
  get isBusy(): boolean {
    return this.unfinished > 0;
  }

  async run<T>(use: () => Promise<T>): Promise<T> {
    const turn = this.take();
    try {
      if (turn.come) await turn.come;
      return await use();
    } finally {
      turn.done();
    }
  }

  /** The turn behind everything that was taken before. `come` is undefined when it is there already. */
  take(): { come: Promise<void> | undefined; done: () => void } {
    const come = this.isBusy ? this.last : undefined;
    let next!: () => void;
    this.last = new Promise((resolve) => (next = resolve));
    this.unfinished++;
    let isDone = false;
    const done = () => {
      if (!isDone) this.unfinished--;
      isDone = true;
      next();
    };
    return { come, done };
  }
}
