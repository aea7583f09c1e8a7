/** What one answer takes of the room. */
export interface Reservation {
  /** It takes so many bytes. */
  holds(bytes: number): void;
  /** It could not be sent, and waits to be sent again. */
  fails(): void;
  close(): void;
}

/** Bytes of answers that are not with the brokers yet. */
export class ReplyRoom {
  private used = 0;
  private failing = 0;
  private waiting: (() => void)[] = [];

  constructor(private readonly limit: number) {}

  get isFull(): boolean {
    return this.used > this.limit;
  }

  /** True where what waits to be sent again takes more than its part: the rest is for the others. */
  get isCrowded(): boolean {
    return this.failing > this.limit / 4;
  }

  /** Resolves once there is room for more. */
  async untilFree(): Promise<void> {
    while (this.isFull) await new Promise<void>((resolve) => this.waiting.push(resolve));
  }

  reserve(): Reservation {
    let [bytes, failing] = [0, 0];
    const set = (nextBytes: number, nextFailing: number) => {
      this.used += nextBytes - bytes;
      this.failing += nextFailing - failing;
      [bytes, failing] = [nextBytes, nextFailing];
      if (!this.isFull) for (const resolve of this.waiting.splice(0)) resolve();
    };
    return {
      holds: (now) => set(now, failing > 0 ? now : 0),
      fails: () => set(bytes, bytes),
      close: () => set(0, 0),
    };
  }
}
