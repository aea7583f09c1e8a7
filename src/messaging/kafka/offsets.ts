/** How far the messages of one partition are handled, in whatever order that happens. */
export class PartitionProgress {
  /** Offsets that were received and are not done, in the order they came. */
  private readonly open = new Set<bigint>();
  private next: bigint | undefined;
  /** What the group has committed. */
  lastCommitted: bigint | undefined;
  /** When something was done last, or came after everything was; on the clock of `performance`. */
  movedAt = performance.now();

  /** @param nextOffset the offset behind everything received so far */
  received(offsets: Iterable<bigint>, nextOffset: bigint): void {
    if (this.open.size === 0) this.movedAt = performance.now();
    for (const offset of offsets) this.open.add(offset);
    this.next = nextOffset;
  }

  done(offset: bigint): void {
    if (this.open.delete(offset)) this.movedAt = performance.now();
  }

  /**
   * The offset to commit: the lowest that is not done, whatever is done above it; behind everything received when all is
   * done. undefined before anything was received.
   */
  get watermark(): bigint | undefined {
    // A Set keeps the order of insertion, which is that of the offsets.
    for (const offset of this.open) return offset;
    return this.next;
  }

  /** The watermark, when it has moved since the last commit. */
  get uncommitted(): bigint | undefined {
    const { watermark } = this;
    return watermark === this.lastCommitted ? undefined : watermark;
  }
}
