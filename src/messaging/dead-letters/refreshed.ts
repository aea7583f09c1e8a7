/** What is known of the database here, and is read again once it may be out of date. */
export class Refreshed {
  private isStale = true;
  private reading: Promise<void> | undefined;

  constructor(private readonly read: () => Promise<void>) {}

  /** Somebody else may have changed it. */
  markStale(): void {
    this.isStale = true;
  }

  /** What is known was changed here, also in the database: what is being read may be older. */
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
