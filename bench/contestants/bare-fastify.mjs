import fastify from 'fastify';
import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import { getById, insert, rename } from './statements.mjs';

/** The floor over HTTP: no framework above Fastify, no check of the input, one named statement. */
export async function open({ databaseUrl, poolSize }) {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: poolSize });
  const app = fastify();
  app.get('/people/:id', async (request, reply) => {
    const { rows } = await pool.query(getById(request.params.id));
    return rows[0] ?? reply.code(404).send();
  });
  app.post('/people', async (request, reply) => {
    const { rows } = await pool.query(insert(uuidv7(), request.body));
    reply.code(201);
    return rows[0];
  });
  app.patch('/people/:id', async (request, reply) => {
    const { rows } = await pool.query(rename(request.params.id, request.body.name));
    return rows[0] ?? reply.code(404).send();
  });
  const url = await app.listen({ host: '127.0.0.1', port: 0 });
  const close = async () => {
    await app.close();
    await pool.end();
  };
  return { url, close };
}
