import path from 'node:path';
import { DataSource } from 'typeorm';
import { peopleMigrations } from '../../migrations/index.js';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/dev/embedded-postgres.js';
import { openDatabase, type TestDatabase } from './test-database.js';

/** A PostgreSQL beside that of the run, which a test may do to what it likes. */
export interface SecondServer {
  /** Has the migrations applied. */
  database: TestDatabase;
  stop(): Promise<void>;
}

/** @param database the name of its database */
export async function startSecondServer(database: string): Promise<SecondServer> {
  const directory = path.join(process.env.TMPDIR!, `second-${database}`);
  const server: EmbeddedPostgres = await startEmbeddedPostgres({ directory, database, durable: false });
  const dataSource = new DataSource({
    type: 'postgres',
    url: server.url,
    migrations: peopleMigrations,
    installExtensions: false,
  });
  await dataSource.initialize();
  await dataSource.runMigrations({ transaction: 'each' });
  await dataSource.destroy();
  const opened = await openDatabase(server.url);
  return {
    database: opened,
    stop: async () => {
      await opened.drop();
      await server.stop();
    },
  };
}
