import { ApplicationError, unchanged } from '../errors/application-error.js';

/** What bodies and answers under way may take together where nothing else is said: 64 MiB. */
export const DEFAULT_BUDGET_BYTES = 64 * 1024 * 1024;
/** How long who has no room waits for it where nothing else is said. */
export const DEFAULT_WAIT_MS = 5000;
/** So much of each request is not counted: small ones go on while large ones wait. Their number is bounded by that of connections. */
export const FREE_BYTES = 16 * 1024;

/** Bodies and answers under way take all the memory that they may have together. HTTP 503. */
export class MemoryBudgetExhaustedError extends ApplicationError {
  constructor() {
    super(unchanged('Too much is being received and answered at the moment', 'try again'), {
      type: 'memory-budget-exhausted',
      status: 503,
      retryable: true,
      retryAfterSeconds: 1,
    });
  }
}

/** The bytes that all bodies and answers under way may take together. */
export class ByteBudget {
  private taken = 0;
  /** Who waits for bytes, first come, first served. */
  private readonly waiting = new Set<{ bytes: number; admit: () => void }>();

  /** @param waitMs how long a share that has no room waits for it */
  constructor(
    readonly limit: number,
    private readonly waitMs: number,
  ) {}

  /** Bytes that are taken now. */
  get used(): number {
    return this.taken;
  }

  /** A share for one request: it is given back whole, once that is over. */
  open(): ByteShare {
    return new ByteShare(this);
  }

  /** @throws MemoryBudgetExhaustedError there is no room now, or others wait for it */
  takeNow(bytes: number): void {
    if (!this.hasRoom(bytes) || this.waiting.size > 0) throw new MemoryBudgetExhaustedError();
    this.taken += bytes;
  }

  /** @throws MemoryBudgetExhaustedError there was no room in time; the reason of `aborted` */
  async take(bytes: number, aborted?: AbortSignal): Promise<void> {
    if (this.hasRoom(bytes) && this.waiting.size === 0) {
      this.taken += bytes;
      return;
    }
    aborted?.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const end = (settle: () => void) => {
        this.waiting.delete(waiter);
        clearTimeout(timer);
        aborted?.removeEventListener('abort', onAbort);
        settle();
      };
      const waiter = { bytes, admit: () => end(resolve) };
      const timer = setTimeout(() => {
        end(() => reject(new MemoryBudgetExhaustedError()));
        this.admit();
      }, this.waitMs);
      const onAbort = () => {
        end(() => reject(aborted!.reason as Error));
        this.admit();
      };
      aborted?.addEventListener('abort', onAbort);
      this.waiting.add(waiter);
    });
  }

  /** Takes bytes that are there and can't be refused any more, also beyond the limit: the others wait for them. */
  takeAnyway(bytes: number): void {
    this.taken += bytes;
  }

  give(bytes: number): void {
    this.taken -= bytes;
    this.admit();
  }

  private hasRoom(bytes: number): boolean {
    // One that is larger than the whole budget goes on alone.
    return this.taken === 0 || this.taken + bytes <= this.limit;
  }

  private admit(): void {
    for (const waiter of this.waiting) {
      if (!this.hasRoom(waiter.bytes)) return;
      this.taken += waiter.bytes;
      waiter.admit();
    }
  }
}

/** What one request has of a `ByteBudget`. */
export class ByteShare {
  private bytes = 0;
  private counted = 0;
  private isClosed = false;

  constructor(private readonly budget: ByteBudget) {}

  /**
   * Takes so much more, waiting for room.
   *
   * @throws MemoryBudgetExhaustedError there was no room in time
   */
  async grow(bytes: number, aborted?: AbortSignal): Promise<void> {
    const more = this.uncounted(bytes);
    if (more > 0) await this.budget.take(more, aborted);
    this.took(bytes, more);
  }

  /** Takes so much more if that is so little that it is not counted. @returns false otherwise */
  growFree(bytes: number): boolean {
    if (this.uncounted(bytes) > 0) return false;
    this.took(bytes, 0);
    return true;
  }

  /** As `grow`, without waiting: for what is in memory already. */
  growNow(bytes: number): void {
    const more = this.uncounted(bytes);
    if (more > 0) this.budget.takeNow(more);
    this.took(bytes, more);
  }

  /** As `growNow`, for what can't be refused any more. */
  growAnyway(bytes: number): void {
    const more = this.uncounted(bytes);
    this.budget.takeAnyway(more);
    this.took(bytes, more);
  }

  /** Gives all of it back; once, however often it is called. */
  close(): void {
    this.isClosed = true;
    const given = this.counted;
    this.counted = 0;
    if (given > 0) this.budget.give(given);
  }

  private uncounted(bytes: number): number {
    return Math.max(0, this.bytes + bytes - FREE_BYTES) - this.counted;
  }

  private took(bytes: number, counted: number): void {
    this.bytes += bytes;
    this.counted += counted;
    // The request ended while it waited.
    if (this.isClosed) this.close();
  }
}
