import type { Logger } from '@nestjs/common';

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
