/** What takes less is not worth a thought. */
const QUICK_MS = 20;
/** Of the time that a call takes alone, what it may add to a batch: where the server works on each row for long, calls side by side win. */
const MOST_OF_ALONE = 0.5;
/** Batches that fail one after another: what fails is then not one call, but that they share. */
const FAILURES = 8;
const PAUSE_MS = 1000;
/** Weight of the latest time in their average. */
const WEIGHT = 0.2;

/** Knows when calls are better sent one by one, each on its own connection: a trigger may be slow, or the statement may not suit the table. */
export class SharingPause {
  private until = 0;
  private aloneMs: number | undefined;
  private addedMs = 0;
  private failures = 0;

  get isOn(): boolean {
    return this.until > 0 && performance.now() < this.until;
  }

  tookAlone(ms: number): void {
    this.aloneMs = this.aloneMs === undefined ? ms : this.aloneMs + (ms - this.aloneMs) * WEIGHT;
  }

  tookTogether(ms: number, calls: number): void {
    this.failures = 0;
    if (this.aloneMs === undefined) return;
    const added = (ms - this.aloneMs) / (calls - 1);
    this.addedMs += (added - this.addedMs) * WEIGHT;
    if (ms > QUICK_MS && this.addedMs > this.aloneMs * MOST_OF_ALONE) this.begin();
  }

  failed(): void {
    if (++this.failures >= FAILURES) this.begin();
  }

  private begin(): void {
    this.until = performance.now() + PAUSE_MS;
    this.failures = 0;
    this.addedMs = 0;
  }
}
