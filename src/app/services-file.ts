import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** Where `npm start` keeps its embedded servers' data and writes where everything is. */
export const DATA_DIRECTORY = path.resolve('.data');
const SERVICES_FILE = path.join(DATA_DIRECTORY, 'services.json');

/** Where the parts of a running service can be reached. */
export interface Services {
  http: string;
  databaseUrl: string;
  /** Empty with `KAFKA=off`. */
  kafkaBrokers: string[];
  pid: number;
}

/** For tools and tests that want to reach what `npm start` started. Holds the database's password: for its owner only. */
export function writeServices(services: Services): void {
  mkdirSync(DATA_DIRECTORY, { recursive: true });
  writeFileSync(SERVICES_FILE, `${JSON.stringify(services, null, 2)}\n`, { mode: 0o600 });
}

export function removeServices(): void {
  rmSync(SERVICES_FILE, { force: true });
}

/** The database of a service that runs in this directory, for tools that were told no other. */
export function runningDatabaseUrl(): string | undefined {
  try {
    return (JSON.parse(readFileSync(SERVICES_FILE, 'utf8')) as Services).databaseUrl;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
