import type { MigrationInterface, QueryRunner } from 'typeorm';
import { tableIn } from '../src/database/table-name.js';

/**
 * What the relay of events works with beside the rows of `message_outbox`: who sends a shard until when, and indexes that
 * find what can be sent now without reading past what waits.
 *
 * The indexes are built concurrently (hence no transaction), so that nobody who publishes waits for them.
 */
export class CreateOutboxLeases1700000000002 implements MigrationInterface {
  name = 'CreateOutboxLeases1700000000002';
  transaction = false;

  async up(queryRunner: QueryRunner): Promise<void> {
    const { connection } = queryRunner;
    const lease = tableIn(connection, 'message_outbox_lease');
    // Its few rows are updated all the time: room on the page keeps their indexes as they are.
    await queryRunner.query(
      `CREATE TABLE IF NOT EXISTS ${lease} (
        "shard" smallint NOT NULL,
        "holder" uuid,
        "leased_until" timestamptz NOT NULL DEFAULT '-infinity',
        CONSTRAINT "message_outbox_lease_pkey" PRIMARY KEY ("shard")
      ) WITH (fillfactor = 10)`,
    );
    await queryRunner.query(
      `INSERT INTO ${lease} ("shard") SELECT generate_series(0, 15) ON CONFLICT ("shard") DO NOTHING`,
    );
    for (const [name, columns] of INDEXES) {
      const index = tableIn(connection, name);
      // A concurrent build that was interrupted leaves an index that is invalid but there.
      const [invalid] = (await queryRunner.query(
        `SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid`,
        [index],
      )) as unknown[];
      if (invalid) await queryRunner.query(`DROP INDEX CONCURRENTLY ${index}`);
      await queryRunner.query(
        `CREATE INDEX CONCURRENTLY IF NOT EXISTS "${name}" ON ${tableIn(connection, 'message_outbox')} ${columns}`,
      );
    }
    // The index of lines takes its place.
    await queryRunner.query(`DROP INDEX CONCURRENTLY IF EXISTS ${tableIn(connection, REPLACED)}`);
  }

  async down(queryRunner: QueryRunner): Promise<void> {
    const { connection } = queryRunner;
    // The relay before this migration knows of no events that wait behind another.
    await queryRunner.query(
      `UPDATE ${tableIn(connection, 'message_outbox')} SET "next_attempt_at" = NULL WHERE "next_attempt_at" = 'infinity'`,
    );
    // Not concurrently: TypeORM reverts in a transaction. Dropping is short.
    for (const [name] of INDEXES)
      await queryRunner.query(`DROP INDEX IF EXISTS ${tableIn(connection, name)}`);
    await queryRunner.query(
      `CREATE INDEX IF NOT EXISTS "${REPLACED}" ON ${tableIn(connection, 'message_outbox')}
        ("shard", "aggregateid", "seq") WHERE "next_attempt_at" IS NOT NULL`,
    );
    await queryRunner.query(`DROP TABLE ${tableIn(connection, 'message_outbox_lease')}`);
  }
}

const REPLACED = 'message_outbox_delayed_idx';
// Of casts of `shard`, and two with `isfinite`, so that each fits one question only and the planner has no choice: where its
// statistics are old it would take one that reads past all that waits.
const INDEXES = [
  ['message_outbox_ready_idx', '(("shard"::int), "seq") WHERE "next_attempt_at" IS NULL'],
  ['message_outbox_line_idx', '(("shard"::int), "aggregateid", "seq") WHERE "next_attempt_at" IS NOT NULL'],
  ['message_outbox_head_idx', '(("shard"::bigint), "aggregateid", "seq") WHERE isfinite("next_attempt_at")'],
  ['message_outbox_due_idx', '("next_attempt_at") WHERE isfinite("next_attempt_at")'],
] as const;
