import type { Logger } from '@nestjs/common';
import { publishLate } from './message-events.js';
import { ToldOnce } from '../telling.js';

/** More than a leader's election or a collection of garbage takes: somebody has to know of it. */
const LATE_MS = 3_000;

/**
 * Tells of brokers that answer, but late: nothing is lost by it, and nothing else tells of it, as a pause that is shorter than every
 * timeout ends no connection and no session.
 */
export class LateAnswers {
  private readonly lateBrokers = new Set<string>();
  private readonly telling: ToldOnce;

  constructor(logger: Logger) {
    this.telling = new ToldOnce(logger, 'the brokers answer in time again');
  }

  /** A request has its answer, or is given up. @param lateMs behind the time for which the broker was asked to wait */
  ended(request: string, broker: string, lateMs: number): void {
    if (lateMs >= LATE_MS) {
      this.lateBrokers.add(broker);
      this.telling.is(broker, {
        msg: 'a broker answers late',
        ...{ broker, request, lateMs: Math.round(lateMs) },
      });
      publishLate({ broker, request, lateMs });
    } else if (this.lateBrokers.delete(broker) && this.lateBrokers.size === 0) this.telling.isOver();
  }
}
