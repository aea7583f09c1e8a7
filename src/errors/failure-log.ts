import type { Logger } from '@nestjs/common';
import { shown } from './shown.js';
import { standingFor, ToldRarely } from './told-rarely.js';

/** A failure, as it is answered and as it is logged. */
export interface LoggedFailure {
  error: unknown;
  type: string;
  status: number;
  detail: string;
}

/** A success so soon after a failure may have been under way before it. */
const QUIET_MS = 5000;
/** Most operations that are remembered as failing. */
const OPERATIONS = 100;

/**
 * The lines of failures that are not the caller's. A state that every request meets, as a database that is away or a full disk, is
 * told once a minute, with the number of the others, and once more when it is over; what an error of the program leads to is told
 * each time.
 */
export class FailureLog {
  private readonly told = new ToldRarely();
  /** When operations were last kept from being done by such a state. */
  private readonly failing = new Map<string, number>();

  constructor(private readonly logger: Logger) {}

  /** @param operation what has to be done well before the state counts as over; left out: that is nobody's to tell */
  failed(failure: LoggedFailure, where: Record<string, unknown>, operation?: string): void {
    const { error, type, status, detail } = failure;
    const entry = { msg: detail, ...where, type, err: error };
    if (status !== 503) return this.logger.error(entry);
    // 503 is the service protecting itself: worth a line, not an alarm.
    const tell = (more: number) => {
      this.logger.warn({ ...entry, ...standingFor(more) });
      if (operation !== undefined && this.failing.size < OPERATIONS) this.failing.set(operation, 0);
    };
    if (!this.told.of(`${type} ${codeBehind(error)}`, tell)) this.logger.debug(entry);
    if (operation !== undefined && this.failing.has(operation))
      this.failing.set(operation, performance.now());
  }

  /** Whether `succeeded` is to be told of anything. */
  get isFailing(): boolean {
    return this.failing.size > 0;
  }

  succeeded(operation: string): void {
    const failedAt = this.failing.get(operation);
    if (failedAt === undefined || performance.now() - failedAt < QUIET_MS) return;
    this.failing.delete(operation);
    this.logger.log({ msg: 'requests that failed are answered again', operation });
  }
}

/** What tells one state from another that is answered alike: the SQLSTATE, or the system's code. */
function codeBehind(error: unknown): string {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    const { code } = cause as { code?: unknown };
    if (typeof code === 'string') return shown(code);
  }
  return '';
}
