import 'reflect-metadata';
import { DataSource } from 'typeorm';
import { peopleMigrations } from './migrations/index.js';
import { EnvironmentError, readEnvironment } from './src/app/environment.js';
import { runningDatabaseUrl } from './src/app/services-file.js';
import { dataSourceOptions } from './src/database/data-source-options.js';
import { Person } from './src/people/person.entity.js';

const { database } = readEnvironment();
const url = database.url ?? runningDatabaseUrl();
if (!url) {
  throw new EnvironmentError([
    'DATABASE_URL: missing; set it, or have `npm start` running for its embedded PostgreSQL',
  ]);
}

/** The DataSource of the TypeORM command line: `npm run migration:run` and the like. */
export default new DataSource({
  ...dataSourceOptions({ ...database, url }, (error) => console.error(error.message)),
  entities: [Person],
  migrations: peopleMigrations,
});
