import type { Logger } from '@nestjs/common';

const EVERY_MS = 60_000;
/** Most subjects that are remembered; a bound, as outsiders choose their names. */
const SUBJECTS = 1000;

/** A condition that lasts, told when it begins, when it turns into another, and when it is over; not each time it is met. */
export class ToldOnce {
  private told: string | undefined;

  constructor(
    private readonly logger: Logger,
    private readonly over: string,
  ) {}

  /** @param what tells one condition from another */
  is(what: string, entry: { msg: string; [field: string]: unknown }): void {
    if (this.told === what) return;
    this.told = what;
    this.logger.warn(entry);
  }

  isOver(): void {
    if (this.told === undefined) return;
    this.told = undefined;
    this.logger.log(this.over);
  }
}

/** Tells of each subject once a minute, however often it is met, and how often it was met in between. */
export class ToldRarely {
  private readonly told = new Map<string, { at: number; more: number }>();

  /** @param tell called where it is time to; `more` is how often it was left untold since the last time */
  of(subject: string, tell: (more: number) => void): void {
    const now = performance.now();
    const known = this.told.get(subject);
    if (known && now - known.at < EVERY_MS) {
      known.more++;
      return;
    }
    this.told.delete(subject);
    const [oldest] = this.told.keys();
    if (this.told.size >= SUBJECTS) this.told.delete(oldest!);
    this.told.set(subject, { at: now, more: 0 });
    tell(known?.more ?? 0);
  }
}

/** The first of some sentences, and how many there are more; undefined where there is none. */
export const firstOf = ([first, ...others]: readonly string[]): string | undefined =>
  others.length === 0 ? first : `${first} (and ${others.length} more)`;
