import { ApplicationError, unchanged } from '../../errors/application-error.js';

/** As many imports as may hold a connection do so, and none of them came to its end in time. HTTP 503. */
export class ImportPlacesTakenError extends ApplicationError {
  constructor() {
    super(unchanged('Other imports take all the connections that imports may have', 'try again'), {
      type: 'import-places-taken',
      status: 503,
      retryable: true,
      retryAfterSeconds: 1,
    });
  }
}

/** How many imports may hold a connection at once: the others wait, first come, first served. */
export class ImportPlaces {
  private taken = 0;
  private readonly waiting = new Set<() => void>();

  /**
   * @param places how many
   * @param waitMs how long one is waited for
   */
  constructor(
    readonly places: number,
    private readonly waitMs: number,
  ) {}

  /** True while somebody waits for a place. */
  get areWanted(): boolean {
    return this.waiting.size > 0;
  }

  /** Takes a place, to be given back. @throws ImportPlacesTakenError none became free in time */
  async take(): Promise<void> {
    if (this.taken < this.places) {
      this.taken++;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(admit);
        reject(new ImportPlacesTakenError());
      }, this.waitMs);
      const admit = () => {
        clearTimeout(timer);
        this.waiting.delete(admit);
        resolve();
      };
      this.waiting.add(admit);
    });
  }

  /** Gives a place back: to whoever has waited the longest. */
  give(): void {
    const [admit] = this.waiting;
    if (admit) admit();
    else this.taken--;
  }
}

/**
 * How many of a pool's connections imports may hold: half of them where nothing else is said, at least one, and never all where there
 * are several.
 */
export const placesOf = (poolSize: number, wanted = Math.floor(poolSize / 2)): number =>
  Math.max(1, Math.min(wanted, poolSize - 1));
