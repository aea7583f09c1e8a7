import type { Logger } from '@nestjs/common';
import { plainText } from '../../errors/plain-text.js';
import { HeldMessages } from '../consuming/held-messages.js';
import { MessageLanes } from '../consuming/lanes.js';
import type { Delivery } from '../delivery.js';
import type { MessageProcessor } from '../consuming/processor.js';
import type { IncomingRecord, KafkaDriver, RecordLimits, WindowReader } from '../kafka-driver.js';
import type { MessageStore } from '../message-store.js';
import type { Ending, ReplayProgress, replayStatements } from './replay.statements.js';

const BEAT_EVERY_MS = 1000;
const ERROR_CHARACTERS = 1000;

/** What windows are replayed with. */
export interface WindowReplaysSettings {
  store: MessageStore;
  /** The group whose inbox tells what was applied. */
  consumer: string;
  /** How long that is remembered, in ms. */
  retentionMs: number;
  limits: RecordLimits;
  batchSize: number;
  logger: Logger;
  /** undefined while there is none. */
  driver: () => KafkaDriver | undefined;
  hasHandler: (topic: string) => boolean;
  toDelivery: (record: IncomingRecord) => Delivery;
  /** Handles messages as those of the group are, and tells of each that is done. */
  processor: (finish: (delivery: Delivery) => void, held: HeldMessages) => MessageProcessor;
}

export interface WindowRunSettings extends WindowReplaysSettings {
  id: string;
  reader: WindowReader;
  statements: ReturnType<typeof replayStatements>;
  /** Whether it is still known of all messages of the window that they were applied. */
  isRemembered: () => boolean;
}

/**
 * One window on its way: a batch of records is read once all of the one before is done. Messages are handled by one batch at a
 * time, on one connection beside those of the group.
 */
export class WindowRun {
  private readonly progress: ReplayProgress;
  private readonly ending = new AbortController();
  private readonly lanes: MessageLanes;
  private readonly held = new HeldMessages();
  private readonly open = new Set<Delivery>();
  private running: Promise<void> = Promise.resolve();
  private beating: Promise<void> | undefined;
  private onDone: () => void = () => undefined;
  private endsAs: Ending = 'done';
  private reason: string | undefined;

  constructor(private readonly settings: WindowRunSettings) {
    const { batchSize, processor, reader } = settings;
    this.progress = {
      total: reader.records,
      read: 0,
      applied: 0,
      repeated: 0,
      skipped: 0,
      dead: 0,
      parked: 0,
    };
    this.lanes = new MessageLanes({ concurrency: 1, batchSize });
    const processing = processor((delivery) => this.finish(delivery), this.held);
    this.lanes.start({ handle: (batch, settle) => processing.handle(batch, settle) });
  }

  get id(): string {
    return this.settings.id;
  }

  /** Begins; how it ends is kept in the store. */
  start(): void {
    const beating = setInterval(() => {
      // Where the store does not answer, one waits for it.
      this.beating ??= this.beat().finally(() => (this.beating = undefined));
    }, BEAT_EVERY_MS);
    this.running = this.readAll()
      .catch((err: unknown) => {
        this.settings.logger.warn({ msg: 'a window is not replayed further', id: this.id, err });
        this.endWith('failed', (err as Error).message);
      })
      .then(() => {
        clearInterval(beating);
        return this.beating;
      })
      .then(() => this.keepEnd());
  }

  cancel(): void {
    this.endWith('cancelled');
  }

  /** Resolves once nothing of it is being handled any more. */
  async stop(): Promise<void> {
    this.endWith(
      'failed',
      'The instance that ran it has stopped. Start it again: what was applied is left as it is.',
    );
    await this.running;
  }

  private async readAll(): Promise<void> {
    const { reader, isRemembered } = this.settings;
    const { signal } = this.ending;
    try {
      for await (const batch of reader.read(signal)) {
        if (!isRemembered())
          throw new Error('It took too long: what was applied at its begin is not remembered any more.');
        await this.handle(batch.records);
        if (signal.aborted) break;
        this.progress.read += batch.offsets;
      }
    } finally {
      reader.close();
    }
  }

  /** Resolves once each of the records is done, or none of them is handled any more. */
  private async handle(records: readonly IncomingRecord[]): Promise<void> {
    const { toDelivery } = this.settings;
    for (const record of records) {
      const delivery = toDelivery(record);
      if (delivery.replyTo) this.progress.skipped++;
      else {
        this.held.join(delivery);
        this.open.add(delivery);
      }
    }
    if (this.open.size === 0) return;
    await new Promise<void>((resolve) => {
      this.onDone = resolve;
      for (const delivery of this.open) this.lanes.add(delivery);
    });
    if (this.ending.signal.aborted) await this.lanes.untilIdle();
  }

  private finish(delivery: Delivery): void {
    delivery.outcome ??= 'handled';
    if (delivery.isRepeated) this.progress.repeated++;
    else this.progress[delivery.outcome === 'handled' ? 'applied' : delivery.outcome]++;
    this.open.delete(delivery);
    if (this.open.size === 0) this.onDone();
  }

  private endWith(state: Ending, reason?: string): void {
    if (this.ending.signal.aborted) return;
    [this.endsAs, this.reason] = [state, reason];
    this.ending.abort();
    this.lanes.suspend();
    for (const delivery of this.lanes.dropWaiting()) this.open.delete(delivery);
    this.onDone();
  }

  private async beat(): Promise<void> {
    const { store, statements, logger } = this.settings;
    try {
      const { rows } = await store.transactions.runStatement<{ isCancelled: boolean }>(
        statements.beat(this.id, this.progress),
        { writes: true, idempotent: true },
      );
      if (rows[0]?.isCancelled !== false) this.cancel();
    } catch (err) {
      logger.debug({ msg: 'how far a window is replayed could not be kept; it is again', err });
    }
  }

  private async keepEnd(): Promise<void> {
    const { store, statements, logger } = this.settings;
    const reason = this.reason === undefined ? undefined : plainText(this.reason, ERROR_CHARACTERS);
    const statement = statements.end(this.id, this.progress, this.endsAs, reason);
    await store.transactions
      .runStatement(statement, { writes: true, idempotent: true, continues: true })
      .catch((err: unknown) =>
        logger.warn({ msg: 'how the replay of a window ended could not be kept', err }),
      );
  }
}
