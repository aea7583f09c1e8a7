import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * The table `people`, or only its index where the table exists already.
 *
 * Nothing here locks out writers of a table in use, changes a row, or refuses what was accepted before: the index is built
 * concurrently (hence no transaction), and leaves out names too long for a B-tree entry.
 */
export class CreatePeople1700000000000 implements MigrationInterface {
  name = 'CreatePeople1700000000000';
  transaction = false;

  async up(queryRunner: QueryRunner): Promise<void> {
    const people = tableOf(queryRunner);
    const [{ version }] = (await queryRunner.query(
      `SELECT current_setting('server_version_num')::int AS version`,
    )) as [{ version: number }];
    // gen_random_uuid() is built in since PostgreSQL 13.
    if (version < 130000) await queryRunner.query('CREATE EXTENSION IF NOT EXISTS pgcrypto');
    await queryRunner.query(
      `CREATE TABLE IF NOT EXISTS ${people} (
        "id" uuid NOT NULL DEFAULT gen_random_uuid(),
        "name" text NOT NULL,
        "data" json,
        CONSTRAINT "people_pkey" PRIMARY KEY ("id")
      )`,
    );
    // A view has no index of its own, and a partitioned table can't have one built concurrently: that is its owner's choice.
    const [table] = (await queryRunner.query(
      `SELECT FROM pg_class WHERE oid = to_regclass($1) AND relkind = 'r'`,
      [people],
    )) as unknown[];
    if (!table) return;
    // A concurrent build that was interrupted leaves an index that is invalid but there.
    const [invalid] = (await queryRunner.query(
      `SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid`,
      [indexOf(queryRunner)],
    )) as unknown[];
    if (invalid) await queryRunner.query(`DROP INDEX CONCURRENTLY ${indexOf(queryRunner)}`);
    await queryRunner.query(
      `CREATE INDEX CONCURRENTLY IF NOT EXISTS "people_name_id_idx" ON ${people} ("name", "id")
        WHERE octet_length(name) <= 2000`,
    );
  }

  /** Takes back the index alone: the table may be older than this migration, and its rows are not ours to drop. */
  async down(queryRunner: QueryRunner): Promise<void> {
    // Not concurrently: TypeORM reverts in a transaction. Dropping is short.
    await queryRunner.query(`DROP INDEX IF EXISTS ${indexOf(queryRunner)}`);
  }
}

function schemaOf({ connection: { options } }: QueryRunner): string {
  return 'schema' in options && options.schema ? `"${options.schema}".` : '';
}
/** As the entity Person has it. */
function tableOf(queryRunner: QueryRunner): string {
  const { namingStrategy, options } = queryRunner.connection;
  const name = namingStrategy.tableName('Person', 'people');
  const { entityPrefix } = options;
  return `${schemaOf(queryRunner)}"${entityPrefix ? namingStrategy.prefixTableName(entityPrefix, name) : name}"`;
}
const indexOf = (queryRunner: QueryRunner) => `${schemaOf(queryRunner)}"people_name_id_idx"`;
