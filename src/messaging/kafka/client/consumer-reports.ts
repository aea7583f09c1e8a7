import type { Logger } from '@nestjs/common';
import { type ConsumerListener, OffsetOutOfRangeError, type StuckPartition } from '../../kafka-driver.js';

/** Topics that are missing or may not be read, partitions that are not read on, and those that are none of this member's. */
type Standstill = 'topics' | 'partitions' | 'foreign';

/** Tells a consumer's listener what does not work at the moment, and when it does again; nothing once the consumer is closing. */
export class ConsumerReports {
  /** `interrupted` was told, and `recovered` is when nothing is left. */
  private readonly broken = new Set<'group' | 'fetch'>();
  private readonly stuck: Record<Standstill, StuckPartition[]> = { topics: [], partitions: [], foreign: [] };

  constructor(
    private readonly listener: ConsumerListener,
    private readonly logger: Logger,
    private readonly closing: AbortSignal,
  ) {}

  interrupted(what: 'group' | 'fetch', reason: Error): void {
    if (this.closing.aborted) return;
    if (this.broken.size === 0) this.listener.interrupted(reason);
    this.broken.add(what);
  }

  recovered(what: 'group' | 'fetch'): void {
    if (this.broken.delete(what) && this.broken.size === 0) this.listener.recovered();
  }

  /** @returns why the consumer has to end: an offset is out of range, and the listener knows no partitions that are stuck */
  standStill(what: Standstill, stuck: StuckPartition[]): Error | undefined {
    const before = this.stuck[what];
    if (this.closing.aborted || (before.length === 0 && stuck.length === 0)) return undefined;
    this.stuck[what] = stuck;
    const wasTold = new Set(before.map(({ reason }) => reason.message));
    for (const { reason, offset, topic, partition } of stuck)
      if (!wasTold.has(reason.message))
        this.logger.error({
          msg: 'a topic or partition is not read on; the others are, and it is tried again',
          ...{ topic, partition, ...(offset !== undefined && { offset: String(offset) }) },
          err: reason,
        });
    if (!this.listener.stuck)
      return stuck.find(({ reason }) => reason instanceof OffsetOutOfRangeError)?.reason;
    this.listener.stuck(Object.values(this.stuck).flat());
    return undefined;
  }
}
