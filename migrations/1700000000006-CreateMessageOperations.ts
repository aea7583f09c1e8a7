import type { MigrationInterface, QueryRunner } from 'typeorm';
import { tableIn } from '../src/database/table-name.js';

/**
 * What people on call do with messages: who did what to which of them and why, the windows of topics that are replayed, and the
 * cause of each dead letter.
 *
 * A release before this one goes on beside it: it names its columns, and knows nothing of the tables. The column is added without a
 * default, so no row is written anew.
 */
export class CreateMessageOperations1700000000006 implements MigrationInterface {
  name = 'CreateMessageOperations1700000000006';

  async up(queryRunner: QueryRunner): Promise<void> {
    const [letters, audit, replays] = tablesIn(queryRunner);
    await queryRunner.query(`ALTER TABLE ${letters} ADD COLUMN IF NOT EXISTS "cause" json`);
    await queryRunner.query(
      `CREATE TABLE IF NOT EXISTS ${audit} (
        "seq" bigint GENERATED ALWAYS AS IDENTITY,
        "at" timestamptz NOT NULL DEFAULT clock_timestamp(),
        "actor" text NOT NULL,
        "action" text NOT NULL,
        "reason" text,
        "dead_letter" bigint,
        "topic" text,
        "details" json,
        CONSTRAINT "message_audit_pkey" PRIMARY KEY ("seq")
      )`,
    );
    await queryRunner.query(
      `CREATE TABLE IF NOT EXISTS ${replays} (
        "id" uuid NOT NULL DEFAULT gen_random_uuid(),
        "consumer" text NOT NULL,
        "topic" text NOT NULL,
        "from" timestamptz NOT NULL,
        "to" timestamptz NOT NULL,
        "actor" text NOT NULL,
        "state" text NOT NULL DEFAULT 'running' CHECK ("state" IN ('running', 'done', 'cancelled', 'failed')),
        "error" text,
        "progress" json NOT NULL DEFAULT '{}',
        "is_cancelled" boolean NOT NULL DEFAULT false,
        "started_at" timestamptz NOT NULL DEFAULT clock_timestamp(),
        "seen_at" timestamptz NOT NULL DEFAULT clock_timestamp(),
        "ended_at" timestamptz,
        CONSTRAINT "message_replay_pkey" PRIMARY KEY ("id")
      )`,
    );
    // One at a time, whichever instance runs it.
    await queryRunner.query(
      `CREATE UNIQUE INDEX IF NOT EXISTS "message_replay_running_idx" ON ${replays} ("consumer") WHERE "state" = 'running'`,
    );
    await queryRunner.query(
      `CREATE INDEX IF NOT EXISTS "message_replay_started_at_idx" ON ${replays} ("started_at")`,
    );
  }

  async down(queryRunner: QueryRunner): Promise<void> {
    const [letters, audit, replays] = tablesIn(queryRunner);
    await queryRunner.query(`DROP TABLE ${replays}`);
    await queryRunner.query(`DROP TABLE ${audit}`);
    await queryRunner.query(`ALTER TABLE ${letters} DROP COLUMN "cause"`);
  }
}

const tablesIn = ({ connection }: QueryRunner) =>
  [
    tableIn(connection, 'message_dead_letter'),
    tableIn(connection, 'message_audit'),
    tableIn(connection, 'message_replay'),
  ] as const;
