import type { MigrationInterface, QueryRunner } from 'typeorm';

/** The table `contracts`. Its number is higher than that of `people`, which it refers to. */
export class CreateContracts1700000000001 implements MigrationInterface {
  name = 'CreateContracts1700000000001';

  async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(`CREATE TABLE contracts (
      id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
      person_id uuid NOT NULL REFERENCES people (id) ON DELETE CASCADE,
      title text NOT NULL UNIQUE
    )`);
  }

  async down(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query('DROP TABLE contracts');
  }
}
