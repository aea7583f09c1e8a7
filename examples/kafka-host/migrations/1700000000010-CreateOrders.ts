import type { MigrationInterface, QueryRunner } from 'typeorm';

/** The tables `stock` and `orders`. Its number is higher than those of `peopleMigrations`, to whose table it refers. */
export class CreateOrders1700000000010 implements MigrationInterface {
  name = 'CreateOrders1700000000010';

  async up(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query(
      `CREATE TABLE stock (item text PRIMARY KEY, available int NOT NULL CHECK (available >= 0))`,
    );
    await queryRunner.query(`INSERT INTO stock VALUES ('book', 3), ('lamp', 1)`);
    await queryRunner.query(`CREATE TABLE orders (
      id uuid PRIMARY KEY,
      person_id uuid NOT NULL REFERENCES people (id),
      item text NOT NULL REFERENCES stock (item),
      quantity int NOT NULL
    )`);
  }

  async down(queryRunner: QueryRunner): Promise<void> {
    await queryRunner.query('DROP TABLE orders');
    await queryRunner.query('DROP TABLE stock');
  }
}
