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
