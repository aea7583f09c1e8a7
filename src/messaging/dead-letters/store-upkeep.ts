import type { Logger } from '@nestjs/common';
import type { CrashSuspects } from './suspects.js';
import type { CommitOffset } from '../kafka-driver.js';
import type { KeyQuarantine } from './quarantine.js';
import type { MessageStore } from '../message-store.js';
import { runUntraced } from '../../tracing/trace-context.js';

export interface UpkeepSettings {
  store: MessageStore;
  groupId: string;
  /** How long it is remembered that a message was handled, in ms. */
  retentionMs: number;
  quarantine: KeyQuarantine;
  crashes: CrashSuspects;
  /** What the group has committed. */
  committed: () => CommitOffset[];
  logger: Logger;
}

const PRUNE_EVERY_MS = 60_000;
const RELEASE_EVERY_MS = 1000;

/** What an instance does for the store now and then, beside its messages. What fails is done the next time. */
export class StoreUpkeep {
  private timers: NodeJS.Timeout[] = [];
  private beating: NodeJS.Timeout | undefined;
  private releasing: Promise<void> | undefined;

  constructor(private readonly settings: UpkeepSettings) {}

  /** Messages are consumed. */
  start(): void {
    const { crashes } = this.settings;
    runUntraced(() => {
      this.beating ??= setInterval(() => void this.beat(), crashes.beatEveryMs);
      this.timers = [
        setInterval(() => void this.prune(), PRUNE_EVERY_MS),
        setInterval(() => void this.release(), RELEASE_EVERY_MS),
      ];
    });
  }

  /** Kafka is away. The signs of life go on, as this instance is not. */
  pause(): void {
    for (const timer of this.timers.splice(0)) clearInterval(timer);
  }

  /** Ends what was begun, and says good-bye. */
  async stop(): Promise<void> {
    this.pause();
    clearInterval(this.beating);
    await this.settings.quarantine.stop();
    await this.settings.crashes.leave();
  }

  private async prune(): Promise<void> {
    const { store, groupId, retentionMs, committed, logger } = this.settings;
    try {
      await store.inbox.prune(groupId, committed(), retentionMs);
    } catch (err) {
      logger.warn({ msg: 'what is old could not be removed; it is tried again', err });
    }
  }

  private async release(): Promise<void> {
    const { quarantine, logger } = this.settings;
    // One that was begun ends first, so that no key is released twice.
    this.releasing ??= quarantine
      .release()
      .catch((err: unknown) =>
        logger.debug({ msg: 'released keys could not be looked for; they are again', err }),
      )
      .finally(() => (this.releasing = undefined));
    await this.releasing;
  }

  private async beat(): Promise<void> {
    const { crashes, logger } = this.settings;
    await crashes
      .beat()
      .catch((err: unknown) =>
        logger.debug({ msg: 'no sign of life could be given; others may watch their messages', err }),
      );
  }
}
