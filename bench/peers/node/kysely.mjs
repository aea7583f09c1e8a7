import { Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';

/** Its query builder over pg. */
export async function open({ databaseUrl, poolSize }) {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: poolSize });
  const db = new Kysely({ dialect: new PostgresDialect({ pool }) });
  return {
    get: (id) =>
      db.selectFrom('people').select(['id', 'name', 'data']).where('id', '=', id).executeTakeFirstOrThrow(),
    create: ({ name, data }) =>
      db
        .insertInto('people')
        .values({ name, data: JSON.stringify(data) })
        .returning(['id', 'name', 'data'])
        .executeTakeFirstOrThrow(),
    update: (id, name) =>
      db
        .updateTable('people')
        .set({ name })
        .where('id', '=', id)
        .returning(['id', 'name', 'data'])
        .executeTakeFirstOrThrow(),
    async remove(id) {
      const { numDeletedRows } = await db.deleteFrom('people').where('id', '=', id).executeTakeFirstOrThrow();
      if (numDeletedRows !== 1n) throw new Error(`${numDeletedRows} people were removed.`);
    },
    close: () => db.destroy(),
  };
}
