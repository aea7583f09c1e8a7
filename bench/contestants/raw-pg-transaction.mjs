import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import { getById, insert, oneRow, remove, rename } from './statements.mjs';

/** The same statements inside BEGIN and COMMIT, each awaited: three round trips. */
export async function open({ databaseUrl, poolSize }) {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: poolSize });
  const inTransaction = async (statement) => {
    const client = await pool.connect();
    try {
      await client.query('BEGIN');
      const row = oneRow(await client.query(statement));
      await client.query('COMMIT');
      return row;
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    } finally {
      client.release();
    }
  };
  return {
    get: (id) => inTransaction(getById(id)),
    create: (person) => inTransaction(insert(uuidv7(), person)),
    update: (id, name) => inTransaction(rename(id, name)),
    remove: (id) => inTransaction(remove(id)),
    close: () => pool.end(),
  };
}
