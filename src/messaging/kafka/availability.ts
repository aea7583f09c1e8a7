import type { StuckPartition } from '../kafka-driver.js';
import { RefusedTopics } from '../outbox/refused-topics.js';
import { firstOf } from '../telling.js';
import type { MessageIntake } from './intake.js';

/** Why messages are not consumed and handled, or those of a topic or partition are not. */
export class Availability {
  /** Why none are; undefined while they are. */
  down: string | undefined = 'not connected yet';
  /** What is not read on while the rest is: partitions, and whole topics (partition -1). */
  stuck: readonly StuckPartition[] = [];
  /** Topics that the brokers take nothing for. */
  readonly refusedTopics = new RefusedTopics();

  constructor(
    private readonly intake: MessageIntake,
    private readonly stalledAfterMs: number,
    private readonly stopping: AbortSignal,
  ) {}

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
