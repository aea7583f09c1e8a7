import type { Logger } from '@nestjs/common';
import { whyNoWrites } from '../../database/pooled-client.js';
import type { MessageStore } from '../message-store.js';
import { ToldOnce } from '../telling.js';
import { pause } from '../waiting.js';

export interface InfrastructureSettings {
  store: MessageStore | undefined;
  logger: Logger;
  stopping: AbortSignal;
  /** What is not to begin meanwhile. */
  intake: { suspend(): void; resume(): void };
}

const PROBE_EVERY_MS = 250;
/** After so long without an answer the database is asked again. */
const ANSWER_MS = 5000;

/** Lets nothing begin until the database answers. Messages wait at the broker meanwhile, and the consumer stays in its group. */
export class InfrastructureWait {
  private probing: Promise<void> | undefined;

  private readonly waiting: ToldOnce;

  constructor(private readonly settings: InfrastructureSettings) {
    this.waiting = new ToldOnce(settings.logger, 'the database can be used: messages that wait go on');
  }

  /** @param err what failed */
  waitFor(err: unknown): void {
    const { stopping, intake } = this.settings;
    if (this.probing || stopping.aborted) return;
    this.waiting.is((err as Error).message, {
      msg: 'messages wait: the database cannot be used, or what became of one could not be written',
      err,
    });
    intake.suspend();
    this.probing = this.probe().finally(() => {
      this.probing = undefined;
      // Once stopping has begun, nothing new may begin.
      if (stopping.aborted) return;
      this.waiting.isOver();
      intake.resume();
    });
  }

  private async probe(): Promise<void> {
    const { store, stopping } = this.settings;
    do await pause(PROBE_EVERY_MS, stopping);
    while (!stopping.aborted && store && !(await isAnswering(store)));
  }
}

const isAnswering = async ({ transactions }: MessageStore): Promise<boolean> =>
  (await whyNoWrites(transactions.dataSource, ANSWER_MS)) === undefined;
