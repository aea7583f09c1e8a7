import { setTimeout as sleep } from 'node:timers/promises';
import { errorCode } from '../../src/dev/process-table.js';
import { smallDisk } from '../people/whose-fault.cases.js';
import type { Stage } from './stage.js';

const DISK_FULL = '53100';

/** People are on a small file system of their own, which is full, while the rest of the machine has room. @returns false where this process may not mount one */
export async function fillDisk({ database }: Stage, ms: number): Promise<boolean> {
  const disk = await smallDisk(database);
  if (!disk) return false;
  try {
    // What people there are is the earlier faults', and not looked at any more.
    await database.query('TRUNCATE people');
    await database.query(`ALTER TABLE people SET TABLESPACE ${disk.name}`);
    await database.query(`CREATE TABLE filler (text text) TABLESPACE ${disk.name}`);
    for (const rows of [1000, 1])
      await untilFull(() =>
        database.query(
          `INSERT INTO filler SELECT repeat(md5(n::text), 50) FROM generate_series(1, ${rows}) n`,
        ),
      );
    await sleep(ms);
  } finally {
    await database.query('DROP TABLE IF EXISTS filler');
    await database.query('ALTER TABLE people SET TABLESPACE pg_default');
    await disk.remove();
  }
  return true;
}

async function untilFull(insert: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await insert();
    } catch (error) {
      if (errorCode(error) === DISK_FULL) return;
      throw error;
    }
  }
}
