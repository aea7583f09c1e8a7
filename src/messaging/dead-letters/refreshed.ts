/** Something that was read from the database and is remembered, until it may be out of date. */
export class Refreshed {
  private isStale = true;
  private reading: Promise<void> | undefined;

  constructor(private readonly read: () => Promise<void>) {}

  /** Somebody else may have changed it. */
  markStale(): void {
    this.isStale = true;
  }

  /** It was changed here and in the database: if it is being read at this moment, what is read may be older. */
  changed(): void {
    if (this.reading) this.isStale = true;
  }

  /** Resolves once all is known that was there when it was called. @throws what `read` throws */
  async known(): Promise<void> {
    while (this.isStale || this.reading) {
      this.reading ??= this.readOnce().finally(() => (this.reading = undefined));
      await this.reading;
    }
  }

  private async readOnce(): Promise<void> {
    this.isStale = false;
    try {
      await this.read();
    } catch (error) {
      this.isStale = true;
      throw error;
    }
  }
}
