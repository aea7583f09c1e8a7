import type { Logger } from '@nestjs/common';
import type { StuckPartition } from '../kafka-driver.js';
import { RefusedTopics } from '../outbox/refused-topics.js';
import { firstOf, ToldOnce } from '../telling.js';
import type { MessageIntake } from './intake.js';

const PASSING_MS = 3000;

/** Why messages are not consumed and handled, or those of a topic or partition are not. */
export class Availability {
  /** Why none are; undefined while they are. */
  down: string | undefined = 'not connected yet';
  /** What is not read on while the rest is: partitions, and whole topics (partition -1). */
  stuck: readonly StuckPartition[] = [];
  /** Topics that the brokers take nothing for. */
  readonly refusedTopics = new RefusedTopics();

  private readonly outage: ToldOnce;
  private telling: NodeJS.Timeout | undefined;

  constructor(
    private readonly intake: MessageIntake,
    private readonly stalledAfterMs: number,
    private readonly stopping: AbortSignal,
    logger: Logger,
  ) {
    this.outage = new ToldOnce(logger, 'messages are consumed again');
  }

  /** None are consumed, and somebody tries to have it otherwise. @param msg says so in the log, where that is news */
  isDown(msg: string, reason: Error): void {
    this.down = reason.message;
    this.outage.is(reason.message, { msg, err: reason });
  }

  /** The same, of what may pass by itself in a moment, as while a group is formed: then it is no news. */
  isInterrupted(reason: Error): void {
    this.down = reason.message;
    this.telling ??= setTimeout(() => {
      this.telling = undefined;
      if (this.down !== undefined && !this.stopping.aborted)
        this.isDown('messages are not consumed; it is tried again', reason);
    }, PASSING_MS).unref();
  }

  isUp(): void {
    this.down = undefined;
    clearTimeout(this.telling);
    this.telling = undefined;
    this.outage.isOver();
  }

  /** In a sentence; undefined where all is well. */
  get reason(): string | undefined {
    if (this.stopping.aborted) return 'is stopping';
    return this.down ?? firstOf(this.stuck.map(sentenceOf)) ?? this.refusedTopics.standstill ?? this.stalled;
  }

  private get stalled(): string | undefined {
    const stalled = this.intake.stalled(this.stalledAfterMs);
    if (!stalled) return undefined;
    const seconds = Math.round(stalled.forMs / 1000);
    return `${stalled.topic}, partition ${stalled.partition}: nothing was done for ${seconds} s, though messages wait`;
  }
}

function sentenceOf({ topic, partition, offset, reason }: StuckPartition): string {
  const where = [topic];
  if (partition >= 0) where.push(`partition ${partition}`);
  if (offset !== undefined) where.push(`offset ${offset}`);
  return `${where.join(', ')}: nothing more is read: ${reason.message}`;
}
