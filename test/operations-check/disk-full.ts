import { execFileSync } from 'node:child_process';
import { chownSync, mkdirSync, rmSync, statSync, writeSync, openSync, closeSync } from 'node:fs';
import path from 'node:path';
import type { Database } from '../delivery/servers.js';

const SIZE = '48m';
const PIECE = Buffer.alloc(1024 * 1024);

/** A small file system of its own, on which the table `people` is, so that it can be filled while the rest of the machine has room. */
export class SmallDisk {
  private constructor(
    private readonly place: string,
    private readonly database: Database,
  ) {}

  /** @returns undefined where this process may not mount one @param directory of the check, whose `postgres/data` is the server's */
  static async mount(directory: string, database: Database): Promise<SmallDisk | undefined> {
    const place = path.join(directory, 'small-disk');
    mkdirSync(place);
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${SIZE}`, 'tmpfs', place], { stdio: 'ignore' });
    } catch {
      return undefined;
    }
    const space = path.join(place, 'space');
    mkdirSync(space);
    const { uid, gid } = statSync(path.join(directory, 'postgres/data'));
    for (const each of [place, space]) chownSync(each, uid, gid);
    await database.query(`CREATE TABLESPACE small LOCATION '${space}'`);
    return new SmallDisk(place, database);
  }

  /** People move there, as far as it holds them, and then nothing more goes onto it. */
  async fill(): Promise<void> {
    // What people there are is the checks' before, and not looked at any more.
    await this.database.query('TRUNCATE people');
    await this.database.query('ALTER TABLE people SET TABLESPACE small');
    const file = openSync(this.file, 'w');
    try {
      for (;;) writeSync(file, PIECE);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    } finally {
      closeSync(file);
    }
  }

  /** Somebody has made room. */
  makeRoom(): void {
    rmSync(this.file, { force: true });
  }

  async unmount(): Promise<void> {
    this.makeRoom();
    await this.database.query('ALTER TABLE people SET TABLESPACE pg_default');
    await this.database.query('DROP TABLESPACE small');
    this.release();
  }

  /** Whatever has become of the server. */
  release(): void {
    execFileSync('umount', ['--lazy', this.place], { stdio: 'ignore' });
  }

  private get file(): string {
    return path.join(this.place, 'filling');
  }
}
