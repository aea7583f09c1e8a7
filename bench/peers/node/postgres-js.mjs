import postgres from 'postgres';

/** Its tagged templates, which prepare what they send. */
export async function open({ databaseUrl, poolSize }) {
  const sql = postgres(databaseUrl, { max: poolSize });
  const one = (rows) => {
    if (rows.length !== 1) throw new Error(`There are ${rows.length} rows where one is right.`);
    return rows[0];
  };
  return {
    get: async (id) => one(await sql`select id, name, data from people where id = ${id}`),
    create: async ({ name, data }) =>
      one(
        await sql`insert into people (name, data) values (${name}, ${sql.json(data)}) returning id, name, data`,
      ),
    update: async (id, name) =>
      one(await sql`update people set name = ${name} where id = ${id} returning id, name, data`),
    remove: async (id) => void one(await sql`delete from people where id = ${id} returning id`),
    close: () => sql.end(),
  };
}
