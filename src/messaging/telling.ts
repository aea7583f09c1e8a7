import type { Logger } from '@nestjs/common';
import { standingFor, ToldRarely } from '../errors/told-rarely.js';

/** A condition that lasts: told when it begins, when it turns into another, each minute, and when it is over; not each time it is met. */
export class ToldOnce {
  private readonly rarely = new ToldRarely();
  private isTold = false;

  constructor(
    private readonly logger: Logger,
    private readonly over: string,
  ) {}

  /**
   * @param what tells one condition from another
   * @returns whether it was told
   */
  is(what: string, entry: { msg: string; [field: string]: unknown }): boolean {
    return this.rarely.of(what, (more) => {
      this.isTold = true;
      this.logger.warn({ ...entry, ...standingFor(more) });
    });
  }

  isOver(): void {
    if (!this.isTold) return;
    this.isTold = false;
    this.logger.log(this.over);
  }
}

/** The first of some sentences, and how many there are more; undefined where there is none. */
export const firstOf = ([first, ...others]: readonly string[]): string | undefined =>
  others.length === 0 ? first : `${first} (and ${others.length} more)`;
