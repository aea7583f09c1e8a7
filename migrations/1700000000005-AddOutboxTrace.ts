import { setTimeout as sleep } from 'node:timers/promises';
import type { MigrationInterface, QueryRunner } from 'typeorm';
import { LOCK_NOT_AVAILABLE } from '../src/database/postgres-errors.js';
import { tableIn } from '../src/database/table-name.js';

/**
 * The trace and the request that an event was published in, as JSON of the headers that it is sent with. Null for events of versions
 * before this, which know nothing of it and go on beside.
 *
 * The lock that it takes is short, but whoever publishes waits behind it while it waits itself: so it waits for a moment only, again and
 * again (hence no transaction around it).
 */
export class AddOutboxTrace1700000000005 implements MigrationInterface {
  name = 'AddOutboxTrace1700000000005';
  transaction = false;

  async up(queryRunner: QueryRunner): Promise<void> {
    await alter(queryRunner, 'ADD COLUMN IF NOT EXISTS "trace" json');
  }

  async down(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(
      `ALTER TABLE ${tableIn(queryRunner.connection, 'message_outbox')} DROP COLUMN IF EXISTS "trace"`,
    );
  }
}

const WAIT_MS = 500;
const REST_MS = 500;

async function alter(queryRunner: QueryRunner, change: string): Promise<void> {
  const table = tableIn(queryRunner.connection, 'message_outbox');
  for (;;) {
    try {
      // Two statements in one query are one transaction, so the timeout is for this alone.
      await queryRunner.query(`SET LOCAL lock_timeout = ${WAIT_MS}; ALTER TABLE ${table} ${change}`);
      return;
    } catch (error) {
      // TypeORM's command line has a pool of its own, whose errors nobody has marked.
      const { driverError } = error as { driverError?: { code?: unknown } };
      if (driverError?.code !== LOCK_NOT_AVAILABLE) throw error;
      await sleep(REST_MS);
    }
  }
}
