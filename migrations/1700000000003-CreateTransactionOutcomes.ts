import type { MigrationInterface, QueryRunner } from 'typeorm';
import { tableIn } from '../src/database/table-name.js';

/**
 * A row for each unit of work with `commitOutcome: 'row'`, for an hour. Its id is a uuid of version 7, so ordered by time.
 * `is_fence` tells the rows of whoever asked first from those of transactions; `created_at` is when it was written, as an attempt
 * may have begun long before.
 */
export class CreateTransactionOutcomes1700000000003 implements MigrationInterface {
  name = 'CreateTransactionOutcomes1700000000003';

  async up(queryRunner: QueryRunner): Promise<void> {
    const table = tableIn(queryRunner.connection, 'transaction_outcome');
    await queryRunner.query(
      `CREATE TABLE IF NOT EXISTS ${table} (
        "id" uuid PRIMARY KEY,
        "is_fence" boolean NOT NULL DEFAULT false,
        "created_at" timestamptz NOT NULL DEFAULT clock_timestamp()
      )`,
    );
  }

  async down(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(`DROP TABLE ${tableIn(queryRunner.connection, 'transaction_outcome')}`);
  }
}
