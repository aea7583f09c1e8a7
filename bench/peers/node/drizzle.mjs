import { eq, sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { json, pgTable, text, uuid } from 'drizzle-orm/pg-core';
import pg from 'pg';

const people = pgTable('people', {
  id: uuid().primaryKey().defaultRandom(),
  name: text().notNull(),
  data: json(),
});

/** Prepared statements, as its page on performance recommends. */
export async function open({ databaseUrl, poolSize }) {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: poolSize });
  const db = drizzle({ client: pool });
  const isIt = eq(people.id, sql.placeholder('id'));
  const get = db.select().from(people).where(isIt).prepare('get');
  const create = db
    .insert(people)
    .values({ name: sql.placeholder('name'), data: sql.placeholder('data') })
    .returning()
    .prepare('create');
  const update = db
    .update(people)
    .set({ name: sql`${sql.placeholder('name')}` })
    .where(isIt)
    .returning()
    .prepare('update');
  const remove = db.delete(people).where(isIt).returning({ id: people.id }).prepare('remove');
  const one = (rows) => {
    if (rows.length !== 1) throw new Error(`There are ${rows.length} rows where one is right.`);
    return rows[0];
  };
  return {
    get: async (id) => one(await get.execute({ id })),
    create: async (person) => one(await create.execute(person)),
    update: async (id, name) => one(await update.execute({ id, name })),
    remove: async (id) => void one(await remove.execute({ id })),
    close: () => pool.end(),
  };
}
