import type { Logger } from '@nestjs/common';
import { brokerAnswer, BrokerAnswerError } from './broker-answers.js';
import type { KafkaDriver, TopicSettings } from '../kafka-driver.js';
import { ToldOnce } from '../telling.js';

/** How often missing topics are looked for: somebody may delete one at any time. */
const LOOK_EVERY_MS = 10_000;
/** After a topic seems to be gone: while it is being deleted it can't be made. */
const SOON_MS = 500;

export interface TopicUpkeepSettings {
  driver: KafkaDriver;
  topics: readonly string[];
  settings: TopicSettings;
  logger: Logger;
}

/** Makes topics that are missing, at the start and whenever one has gone since. One that can't be made keeps no other waiting. */
export class TopicUpkeep {
  private readonly refused: ToldOnce;
  private timer: NodeJS.Timeout | undefined;
  private isStopped = false;

  constructor(private readonly settings: TopicUpkeepSettings) {
    this.refused = new ToldOnce(settings.logger, 'all topics are there');
  }

  /** @throws Error the brokers can't be reached, or take nothing of this client */
  async createMissing(): Promise<void> {
    const { driver, topics, settings } = this.settings;
    try {
      await driver.createMissingTopics(topics, settings);
      this.refused.isOver();
    } catch (err) {
      if (!(err instanceof BrokerAnswerError) || brokerAnswer(err.answer) === 'fatal') throw err;
      this.refused.is(err.message, {
        msg: 'topics are missing and can not be created: what is sent to them waits, and it is tried again',
        err,
      });
    }
  }

  start(): void {
    this.isStopped = false;
    this.lookIn(LOOK_EVERY_MS);
  }

  /** A topic seems to be missing. */
  suspect(): void {
    if (this.timer) this.lookIn(SOON_MS);
  }

  /** A look that is under way ends by itself. */
  stop(): void {
    this.isStopped = true;
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private lookIn(milliseconds: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      void this.look().then(() => {
        if (!this.isStopped) this.lookIn(LOOK_EVERY_MS);
      });
    }, milliseconds);
  }

  private async look(): Promise<void> {
    try {
      await this.createMissing();
    } catch (err) {
      this.settings.logger.debug({ msg: 'it could not be looked for missing topics; it is again', err });
    }
  }
}
