import { Logger } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import { withClient } from '../../database/pooled-client.js';
import { tableIn } from '../../database/table-name.js';

/** How often it is looked for while it is not there: its migration may come later. */
const LOOK_EVERY_MS = 10_000;

const columns = new WeakMap<DataSource, TraceColumn>();

/**
 * Whether `message_outbox` has the column `trace`. A table that was made before it goes on without: events are sent as ever, and
 * begin traces of their own.
 */
export class TraceColumn {
  static of(dataSource: DataSource): TraceColumn {
    let column = columns.get(dataSource);
    if (!column) columns.set(dataSource, (column = new TraceColumn(dataSource)));
    return column;
  }

  private readonly logger = new Logger('Outbox');
  private isKnownThere = false;
  private lookedAt = -Infinity;
  private looking: Promise<void> | undefined;

  private constructor(private readonly dataSource: DataSource) {}

  /** As it was when it was last looked for, which is done beside whoever asks. */
  get isThere(): boolean {
    if (!this.isKnownThere && performance.now() - this.lookedAt > LOOK_EVERY_MS) void this.look();
    return this.isKnownThere;
  }

  /** A statement has failed for want of a column, so it may be gone. */
  doubt(): void {
    this.isKnownThere = false;
    this.lookedAt = -Infinity;
  }

  /** Never rejects: what keeps the database from answering is told by whoever needs it. */
  look(): Promise<void> {
    this.lookedAt = performance.now();
    return (this.looking ??= this.ask().finally(() => (this.looking = undefined)));
  }

  /** Resolves when nothing is asked any more. */
  async untilIdle(): Promise<void> {
    await this.looking;
  }

  private async ask(): Promise<void> {
    try {
      const { rows } = await withClient(this.dataSource, 'fast', ({ client }) =>
        client.query<{ is_there: boolean }>(
          `SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'trace' AND NOT attisdropped) AS is_there`,
          [tableIn(this.dataSource, 'message_outbox')],
        ),
      );
      this.isKnownThere = rows[0]!.is_there;
    } catch (err) {
      this.logger.debug({ msg: 'the columns of message_outbox could not be asked for', err });
    }
  }
}
