import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import { getById, insert, oneRow, remove, rename } from './statements.mjs';

/** The floor: one named statement, one round trip, and PostgreSQL's own transaction around it. */
export async function open({ databaseUrl, poolSize }) {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: poolSize });
  const run = async (statement) => oneRow(await pool.query(statement));
  return {
    get: (id) => run(getById(id)),
    create: (person) => run(insert(uuidv7(), person)),
    update: (id, name) => run(rename(id, name)),
    remove: (id) => run(remove(id)),
    close: () => pool.end(),
  };
}
