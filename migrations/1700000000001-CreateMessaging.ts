import type { MigrationInterface, QueryRunner } from 'typeorm';
import { tableIn } from '../src/database/table-name.js';

/** The tables of `messaging/`: what was handled, what is to be sent, what could not be handled, and who does it. */
export class CreateMessaging1700000000001 implements MigrationInterface {
  name = 'CreateMessaging1700000000001';

  async up(queryRunner: QueryRunner): Promise<void> {
    const [inbox, outbox, deadLetter, quarantine, instance, trial] = tablesIn(queryRunner);
    await queryRunner.query(
      `CREATE TABLE ${inbox} (
        "consumer" text NOT NULL,
        "message_id" text NOT NULL,
        "digest" text NOT NULL,
        "reply" json,
        "topic" text,
        "partition" int,
        "offset" bigint,
        "handled_at" timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT "message_inbox_pkey" PRIMARY KEY ("consumer", "message_id")
      )`,
    );
    // For pruning; rows come in its order, so it costs little.
    await queryRunner.query(`CREATE INDEX "message_inbox_handled_at_idx" ON ${inbox} ("handled_at")`);
    // The first five columns are those of Debezium's outbox event router, but for payload: jsonb would change numbers.
    await queryRunner.query(
      `CREATE TABLE ${outbox} (
        "id" uuid NOT NULL DEFAULT gen_random_uuid(),
        "aggregatetype" text NOT NULL,
        "aggregateid" text NOT NULL,
        "type" text NOT NULL,
        "payload" json,
        "topic" text NOT NULL,
        "dead_letter" bigint,
        "seq" bigint GENERATED ALWAYS AS IDENTITY,
        "shard" smallint NOT NULL GENERATED ALWAYS AS (abs(hashtext("aggregateid") % 16)) STORED,
        "created_at" timestamptz NOT NULL DEFAULT now(),
        "attempts" int NOT NULL DEFAULT 0,
        "next_attempt_at" timestamptz,
        "last_error" text,
        CONSTRAINT "message_outbox_pkey" PRIMARY KEY ("shard", "seq")
      )`,
    );
    await queryRunner.query(
      `CREATE INDEX "message_outbox_delayed_idx" ON ${outbox} ("shard", "aggregateid", "seq")
        WHERE "next_attempt_at" IS NOT NULL`,
    );
    await queryRunner.query(
      `CREATE TABLE ${deadLetter} (
        "seq" bigint GENERATED ALWAYS AS IDENTITY,
        "consumer" text NOT NULL,
        "message_id" text NOT NULL,
        "topic" text NOT NULL,
        "partition" int NOT NULL,
        "offset" bigint NOT NULL,
        "timestamp" text NOT NULL,
        "key" bytea,
        "key_hash" bytea GENERATED ALWAYS AS (sha256("key")) STORED,
        "value" bytea,
        "headers" json NOT NULL,
        "code" text NOT NULL,
        "message" text NOT NULL,
        "attempts" int NOT NULL,
        "state" text NOT NULL DEFAULT 'dead' CHECK ("state" IN ('dead', 'parked', 'replayed', 'discarded')),
        "created_at" timestamptz NOT NULL DEFAULT now(),
        "settled_at" timestamptz,
        CONSTRAINT "message_dead_letter_pkey" PRIMARY KEY ("seq")
      )`,
    );
    await queryRunner.query(
      `CREATE INDEX "message_dead_letter_waiting_idx" ON ${deadLetter} ("topic", "seq")
        WHERE "state" IN ('dead', 'parked')`,
    );
    await queryRunner.query(
      `CREATE INDEX "message_dead_letter_line_idx" ON ${deadLetter} ("consumer", "topic", "key_hash", "seq")
        WHERE "state" IN ('dead', 'parked')`,
    );
    await queryRunner.query(
      `CREATE INDEX "message_dead_letter_parked_idx" ON ${deadLetter} ("consumer", "message_id") WHERE "state" = 'parked'`,
    );
    await queryRunner.query(
      `CREATE INDEX "message_dead_letter_settled_idx" ON ${deadLetter} ("settled_at") WHERE "settled_at" IS NOT NULL`,
    );
    // A hash, as keys may be longer than an index takes.
    await queryRunner.query(
      `CREATE TABLE ${quarantine} (
        "consumer" text NOT NULL,
        "topic" text NOT NULL,
        "key_hash" bytea NOT NULL,
        "created_at" timestamptz NOT NULL DEFAULT now(),
        "released_at" timestamptz,
        CONSTRAINT "message_quarantine_pkey" PRIMARY KEY ("consumer", "topic", "key_hash")
      )`,
    );
    await queryRunner.query(
      `CREATE INDEX "message_quarantine_released_idx" ON ${quarantine} ("consumer", "released_at")
        WHERE "released_at" IS NOT NULL`,
    );
    await queryRunner.query(
      `CREATE TABLE ${instance} (
        "consumer" text NOT NULL,
        "id" uuid NOT NULL,
        "seen_at" timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT "message_instance_pkey" PRIMARY KEY ("consumer", "id")
      )`,
    );
    await queryRunner.query(
      `CREATE TABLE ${trial} (
        "consumer" text NOT NULL,
        "message_id" text NOT NULL,
        "instance" uuid NOT NULL,
        "count" int NOT NULL,
        CONSTRAINT "message_trial_pkey" PRIMARY KEY ("consumer", "message_id")
      )`,
    );
  }

  async down(queryRunner: QueryRunner): Promise<void> {
    for (const table of tablesIn(queryRunner)) await queryRunner.query(`DROP TABLE ${table}`);
  }
}

const tablesIn = ({ connection }: QueryRunner) =>
  [
    tableIn(connection, 'message_inbox'),
    tableIn(connection, 'message_outbox'),
    tableIn(connection, 'message_dead_letter'),
    tableIn(connection, 'message_quarantine'),
    tableIn(connection, 'message_instance'),
    tableIn(connection, 'message_trial'),
  ] as const;
