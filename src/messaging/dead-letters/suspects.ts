import { Logger } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { ApplicationError } from '../../errors/application-error.js';
import { type CrashReport, crashStatements } from './suspects.statements.js';
import type { Delivery } from '../delivery.js';
import type { MessageStore } from '../message-store.js';
import { Refreshed } from './refreshed.js';
import { SoloGate } from './solo-gate.js';

/** The process has ended, each time, while it handled this message. HTTP 422. */
export class MessageKillsProcessError extends ApplicationError {
  constructor() {
    super(
      'The process has ended without a word each time it handled this message. Look for what ends it (memory, native code, process.exit), then replay the message.',
      { type: 'message-kills-process', status: 422 },
    );
  }
}

/** Crashes over a message, the last of them while it alone was handled, that make it a dead letter. */
const CRASHES = 2;
/** Messages that are watched after one crash; twice as many after each further one. */
const WATCHED = 1000;
const MOST_WATCHED = 64_000;

/**
 * Finds the message that kills the process. An instance that ended without saying good-bye is known by its row in
 * `message_instance`, which grows old. Then messages are watched for a while: handled each by itself, with a row in
 * `message_trial` as long as that takes. Rows that a crash leaves name the suspects, at most one for each message that was
 * handled at once; a suspect is handled while nothing else is, and when a crash leaves that row again it is convicted.
 */
export class CrashSuspects {
  private readonly logger = new Logger(CrashSuspects.name);
  private readonly statements: ReturnType<typeof crashStatements>;
  private readonly gate: SoloGate;
  private suspects = new Map<string, number>();
  /** How many more messages are watched. */
  private watched = 0;
  private readonly fresh = new Refreshed(() => this.look());
  /** Every so often the instance gives a sign of life, in ms. */
  readonly beatEveryMs: number;

  /** @param consumer the group */
  constructor(
    private readonly store: MessageStore,
    consumer: string,
    sessionTimeoutMs: number,
  ) {
    const { dataSource } = store.transactions;
    // Half a session, so that a crash is known before the group hands on the partitions.
    const silenceMs = Math.ceil(sessionTimeoutMs / 2);
    this.beatEveryMs = Math.ceil(silenceMs / 3);
    this.gate = new SoloGate(silenceMs);
    this.statements = crashStatements(dataSource, consumer, randomUUID(), silenceMs);
  }

  /** Other partitions are this member's now, perhaps those of an instance that has crashed. */
  assigned(): void {
    this.fresh.markStale();
  }

  /** Gives a sign of life. */
  async beat(): Promise<void> {
    await this.write(this.statements.alive());
  }

  /** Says good-bye, so that nobody takes it for a crash. */
  async leave(): Promise<void> {
    await this.write(this.statements.leave());
  }

  /**
   * Runs `work` for what may be handled together, and for each message that is watched by itself.
   *
   * @param failed settles a message for which `work` was not run; false: it comes again
   */
  async watch(
    batch: readonly Delivery[],
    work: (batch: readonly Delivery[]) => Promise<void>,
    failed: (delivery: Delivery, error: unknown) => Promise<boolean>,
  ): Promise<void> {
    try {
      await this.fresh.known();
    } catch (error) {
      for (const delivery of batch) await failed(delivery, error);
      return;
    }
    const unwatched: Delivery[] = [];
    const flush = () => this.gate.together(() => work(unwatched.splice(0)));
    for (const delivery of batch) {
      const { messageId } = delivery.message;
      if (this.watched <= 0 && !this.suspects.has(messageId)) {
        unwatched.push(delivery);
        continue;
      }
      await flush();
      try {
        await this.watchOne(messageId, () => work([delivery]));
      } catch (error) {
        const isDone = await failed(delivery, error);
        if (isDone && error instanceof MessageKillsProcessError) await this.endTrial(messageId);
      }
    }
    await flush();
  }

  private async watchOne(messageId: string, work: () => Promise<void>): Promise<void> {
    const crashes = this.suspects.get(messageId) ?? 0;
    if (crashes >= CRASHES) throw new MessageKillsProcessError();
    // The trial is written once the message may begin: while it waits, only another message can end the process.
    const tryIt = async () => {
      const { rowCount } = await this.write(this.statements.begin(messageId, crashes + 1));
      const isWatched = rowCount !== 0;
      if (isWatched) this.watched--;
      await work();
      return isWatched;
    };
    if (crashes > 0)
      this.logger.warn({ msg: 'a message is handled alone: an instance crashed over it', messageId });
    const wasWatched = await (crashes > 0 ? this.gate.alone(tryIt) : this.gate.together(tryIt));
    if (wasWatched) await this.endTrial(messageId);
  }

  private async endTrial(messageId: string): Promise<void> {
    this.suspects.delete(messageId);
    await this.write(this.statements.end(messageId)).catch((err: unknown) =>
      // The row names this instance, and is removed with it.
      this.logger.debug({ msg: 'a trial could not be ended', messageId, err }),
    );
  }

  private async look(): Promise<void> {
    const { rows } = await this.write<CrashReport>(this.statements.look());
    const { crashed, left } = rows[0]!;
    this.suspects = new Map(Object.entries(left));
    this.watched = crashed === 0 ? 0 : Math.min(WATCHED * 2 ** (crashed - 1), MOST_WATCHED);
    if (crashed > 0)
      this.logger.warn({ msg: 'an instance crashed; the next messages are watched', crashed, messages: this.watched }); // prettier-ignore
  }

  private write<Row extends object>(statement: Parameters<MessageStore['transactions']['runStatement']>[0]) {
    return this.store.transactions.runStatement<Row>(statement, { writes: true, idempotent: true });
  }
}
