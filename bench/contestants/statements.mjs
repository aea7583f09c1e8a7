/** What the contestants that write their SQL themselves send: prepared once a connection, because they have a name. */
export const getById = (id) => ({
  name: 'get',
  text: 'SELECT id, name, data FROM people WHERE id = $1',
  values: [id],
});

export const insert = (id, { name, data }) => ({
  name: 'insert',
  text: 'INSERT INTO people (id, name, data) VALUES ($1, $2, $3) RETURNING id, name, data',
  values: [id, name, data],
});

export const rename = (id, name) => ({
  name: 'rename',
  text: 'UPDATE people SET name = $2 WHERE id = $1 RETURNING id, name, data',
  values: [id, name],
});

export const remove = (id) => ({
  name: 'remove',
  text: 'DELETE FROM people WHERE id = $1 RETURNING id',
  values: [id],
});

/** The one row of a statement that must have one. */
export function oneRow({ rows }) {
  if (rows.length !== 1) throw new Error(`There are ${rows.length} rows where one is right.`);
  return rows[0];
}
