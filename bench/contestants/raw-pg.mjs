import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import { getById, insert } from './statements.mjs';

/** The floor: one named statement, one round trip, and PostgreSQL's own transaction around it. */
export async function open({ databaseUrl, poolSize }) {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: poolSize });
  return {
    get: async (id) => (await pool.query(getById(id))).rows[0],
    create: async (person) => (await pool.query(insert(uuidv7(), person))).rows[0],
    close: () => pool.end(),
  };
}
