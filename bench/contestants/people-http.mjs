import 'reflect-metadata';
import { createApp } from '../../dist/src/app/create-app.js';
import { readEnvironment } from '../../dist/src/app/environment.js';

/** The service as `npm start` runs it, but for Kafka and for the lines of its log. */
export async function open({ databaseUrl, poolSize }) {
  const environment = readEnvironment({
    DATABASE_URL: databaseUrl,
    DB_POOL_SIZE: String(poolSize),
    KAFKA: 'off',
    LOG_LEVEL: 'silent',
  });
  const app = await createApp(environment);
  await app.listen({ host: '127.0.0.1', port: 0 });
  return { url: await app.getUrl(), close: () => app.close() };
}
