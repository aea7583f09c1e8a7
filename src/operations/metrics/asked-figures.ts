import { Logger } from '@nestjs/common';
import { ToldOnce } from '../../messaging/telling.js';
import { endsWithin } from '../../messaging/waiting.js';

/** So old may be what is shown. */
const FRESH_MS = 2000;
/** So long whoever scrapes waits for an answer, and only where the last question was answered in that time. */
const ANSWER_MS = 1000;

/**
 * Figures that others have to be asked for, a database or the brokers. Whoever scrapes while these are away gets what this process
 * knows by itself, at once.
 */
export class AskedFigures<Figures> {
  private figures: Figures | undefined;
  private askedAt = -Infinity;
  private asking: Promise<void> | undefined;
  private isWaitedFor = true;
  private readonly failing: ToldOnce;

  /**
   * @param source who is asked, as metrics call it
   * @param ask gives up by itself when the signal says so
   */
  constructor(
    private readonly source: string,
    private readonly ask: (signal: AbortSignal) => Promise<Figures>,
  ) {
    this.failing = new ToldOnce(new Logger('Metrics'), `figures of the source ${source} are read again`);
  }

  /** Those of two seconds ago at most; undefined where there was no answer. */
  async known(): Promise<Figures | undefined> {
    if (performance.now() - this.askedAt > FRESH_MS) this.asking ??= this.askOnce();
    if (this.asking && this.isWaitedFor) {
      this.isWaitedFor = await endsWithin(ANSWER_MS, this.asking);
      if (!this.isWaitedFor) this.figures = undefined;
    }
    return this.figures;
  }

  /** Never rejects. */
  private async askOnce(): Promise<void> {
    this.askedAt = performance.now();
    try {
      this.figures = await this.ask(AbortSignal.timeout(ANSWER_MS));
      this.isWaitedFor = true;
      this.failing.isOver();
    } catch (err) {
      this.figures = undefined;
      this.isWaitedFor = false;
      const msg = `figures of the source ${this.source} can't be read; metrics go without them`;
      this.failing.is((err as Error).message, { msg, err });
    } finally {
      this.asking = undefined;
    }
  }
}
