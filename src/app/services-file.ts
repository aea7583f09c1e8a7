import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** Where `npm start` keeps its embedded servers' data and writes where everything is. */
export const DATA_DIRECTORY = path.resolve('.data');
const SERVICES_FILE = path.join(DATA_DIRECTORY, 'services.json');

/** Where the parts of a running service can be reached. */
export interface Services {
  http: string;
  /** Where metrics, documentation and health are, where they have a port of their own. */
  management?: string;
  /** As it was configured: of several hosts with all of them, so that it holds over a failover. */
  databaseUrl: string;
  /** Empty with `KAFKA=off`. */
  kafkaBrokers: string[];
  pid: number;
}

/** Makes the directory for this user alone: it holds people's data, and passwords. */
export function makeDataDirectory(): void {
  mkdirSync(DATA_DIRECTORY, { recursive: true });
  // Root's PostgreSQL runs as another user, who has to get through to its own directory.
  const mode = process.getuid?.() === 0 ? 0o711 : 0o700;
  if (statSync(DATA_DIRECTORY).uid === process.getuid?.()) chmodSync(DATA_DIRECTORY, mode);
}

let isWritten = false;

/** For tools and tests that want to reach what `npm start` started. Holds the database's password: for its owner only. */
export function writeServices({ http, management, databaseUrl, kafkaBrokers, pid }: Services): void {
  makeDataDirectory();
  // Moved into place whole: a tool may read it at any moment.
  const draft = `${SERVICES_FILE}.${pid}`;
  const services: Services = { http, ...(management && { management }), databaseUrl, kafkaBrokers, pid };
  writeFileSync(draft, `${JSON.stringify(services, null, 2)}\n`, { mode: 0o600 });
  renameSync(draft, SERVICES_FILE);
  isWritten = true;
}

/** Removes what this process has written; what another process of this directory wrote stays. */
export function removeServices(): void {
  if (!isWritten || readServices()?.pid !== process.pid) return;
  rmSync(SERVICES_FILE);
  isWritten = false;
}

/** The database of a service that runs in this directory, for tools that were told no other. */
export function runningDatabaseUrl(): string | undefined {
  return readServices()?.databaseUrl;
}

function readServices(): Services | undefined {
  try {
    return JSON.parse(readFileSync(SERVICES_FILE, 'utf8')) as Services;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
