import {
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
  type OnModuleDestroy,
} from '@nestjs/common';
import { runUntraced } from '../../tracing/trace-context.js';
import { DeadLetters } from '../dead-letters.js';
import { Inbox } from '../inbox.js';
import { MESSAGING_SETTINGS, type MessagingSettings, retentionOf } from '../messaging-settings.js';

const FIRST_MS = 5000;
const EVERY_MS = 60_000;

/**
 * Removes, now and then, what is old and belongs to no Kafka message: what was kept for an `Idempotency-Key`, and dead letters
 * that were settled. Wherever `MessagingModule` is, also without Kafka; rows of Kafka messages are `StoreUpkeep`'s, which knows
 * the committed offsets. Several instances pass by each other's rows, and what fails is done the next time.
 */
@Injectable()
export class StorePruning implements OnApplicationBootstrap, OnModuleDestroy {
  private readonly logger = new Logger(StorePruning.name);
  private timer: NodeJS.Timeout | undefined;
  private isStopped = false;

  /** @throws Error a time that is none */
  constructor(
    private readonly inbox: Inbox,
    private readonly deadLetters: DeadLetters,
    @Inject(MESSAGING_SETTINGS) private readonly settings: MessagingSettings,
  ) {
    retentionOf(settings);
  }

  onApplicationBootstrap(): void {
    runUntraced(() => this.prunesIn(Math.min(FIRST_MS, this.everyMs)));
  }

  /** Begins nothing more. A statement that runs is a unit of work, whose end `TransactionRunner` waits for. */
  onModuleDestroy(): void {
    this.isStopped = true;
    clearTimeout(this.timer);
  }

  /** At a random time, so that instances that were started together don't prune together each time. */
  private prunesIn(atMostMs: number): void {
    if (this.isStopped) return;
    const wait = atMostMs * (0.5 + Math.random() / 2);
    this.timer = setTimeout(() => void this.prune().finally(() => this.prunesIn(this.everyMs)), wait);
    this.timer.unref();
  }

  private async prune(): Promise<void> {
    const retentionMs = retentionOf(this.settings);
    const goesOn = () => !this.isStopped;
    try {
      await this.inbox.prune('', [], retentionMs, goesOn);
      await this.deadLetters.prune(retentionMs, goesOn);
    } catch (err) {
      if (!this.isStopped)
        this.logger.warn({ msg: 'what is old could not be removed; it is tried again', err });
    }
  }

  private get everyMs(): number {
    return this.settings.pruneEveryMs ?? EVERY_MS;
  }
}
