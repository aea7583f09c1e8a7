import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestDatabase } from '../support/test-database.js';

/** A state of the database in which it does not store a person, really brought about. */
export interface RefusingState {
  what: string;
  /** The SQLSTATE that it answers with; undefined where it says nothing. */
  sqlState: string | undefined;
  /** Statements that bring it about, and that end it. */
  begin: string[];
  end: string[];
  /** In place of a name that nothing is wrong with otherwise. */
  name?: string;
  /** What the problem names. */
  names?: RegExp;
  /** 409 for what may exist only once. */
  status?: number;
}

const trigger = (body: string, options = ''): Pick<RefusingState, 'begin' | 'end'> => ({
  begin: [
    `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql ${options} AS $$ BEGIN ${body} END $$`,
    'CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON people FOR EACH ROW EXECUTE FUNCTION refuse()',
  ],
  end: ['DROP TRIGGER refuse ON people', 'DROP FUNCTION refuse'],
});
const constraint = (definition: string): Pick<RefusingState, 'begin' | 'end'> => ({
  begin: [`ALTER TABLE people ADD CONSTRAINT house_rule ${definition}`],
  end: ['ALTER TABLE people DROP CONSTRAINT house_rule'],
});
/** As a B-tree entry it is too long, and compression does not help. */
const incompressible = randomBytes(4000).toString('base64');

/** What was asked for is to blame. */
export const INPUT: RefusingState[] = [
  {
    what: 'a column that is too short',
    sqlState: '22001',
    begin: ['ALTER TABLE people ALTER name TYPE varchar(8)'],
    end: ['ALTER TABLE people ALTER name TYPE text'],
    names: /column name/,
  },
  { what: 'a trigger that divides by zero', sqlState: '22012', ...trigger('PERFORM 1 / 0; RETURN NEW;') },
  {
    what: 'a column of somebody else’s that must have a value',
    sqlState: '23502',
    begin: ['ALTER TABLE people ADD tenant text', 'ALTER TABLE people ALTER tenant SET NOT NULL'],
    end: ['ALTER TABLE people DROP tenant'],
    names: /column tenant/,
  },
  {
    what: 'a reference to another table',
    sqlState: '23503',
    begin: [
      'CREATE TABLE known (name text PRIMARY KEY)',
      'ALTER TABLE people ADD CONSTRAINT house_rule FOREIGN KEY (name) REFERENCES known',
    ],
    end: ['ALTER TABLE people DROP CONSTRAINT house_rule', 'DROP TABLE known'],
    names: /house_rule/,
  },
  {
    what: 'another UNIQUE',
    sqlState: '23505',
    begin: [
      'ALTER TABLE people ADD CONSTRAINT house_rule UNIQUE (name)',
      `INSERT INTO people (name) VALUES ('Ada Lovelace')`,
    ],
    end: ['ALTER TABLE people DROP CONSTRAINT house_rule'],
    names: /house_rule/,
    status: 409,
  },
  {
    what: 'an exclusion',
    sqlState: '23P01',
    begin: [
      'ALTER TABLE people ADD CONSTRAINT house_rule EXCLUDE USING hash (name WITH =)',
      `INSERT INTO people (name) VALUES ('Ada Lovelace')`,
    ],
    end: ['ALTER TABLE people DROP CONSTRAINT house_rule'],
    names: /house_rule/,
    status: 409,
  },
  {
    what: 'a CHECK',
    sqlState: '23514',
    ...constraint(`CHECK (name <> 'Ada Lovelace')`),
    names: /house_rule/,
  },
  {
    what: 'the check of a view',
    sqlState: '44000',
    begin: [
      'ALTER TABLE people RENAME TO away',
      `CREATE VIEW people AS SELECT id, name, data, xmin, ctid FROM away WHERE name <> 'Ada Lovelace' WITH CHECK OPTION`,
      'GRANT ALL ON people TO $role',
    ],
    end: ['DROP VIEW people', 'ALTER TABLE away RENAME TO people'],
  },
  {
    what: 'a trigger that raises',
    sqlState: 'P0001',
    ...trigger(`RAISE EXCEPTION 'the secret of %', NEW.name; RETURN NEW;`),
    names: /a trigger/,
  },
  {
    what: 'an index that takes no long values',
    sqlState: '54000',
    begin: ['CREATE INDEX house_rule ON people (name)'],
    end: ['DROP INDEX house_rule'],
    name: incompressible,
  },
  {
    what: 'row security',
    sqlState: '42501',
    begin: [
      'ALTER TABLE people ENABLE ROW LEVEL SECURITY',
      `CREATE POLICY house_rule ON people USING (true) WITH CHECK (name <> 'Ada Lovelace')`,
    ],
    end: ['DROP POLICY house_rule ON people', 'ALTER TABLE people DISABLE ROW LEVEL SECURITY'],
    names: /row security/,
  },
  {
    what: 'a trigger that keeps the row out',
    sqlState: undefined,
    ...trigger('RETURN NULL;'),
    names: /a trigger/,
  },
];

/** Nothing is wrong with what was asked for; the server can't do it now. */
export const SERVER: RefusingState[] = [
  {
    what: 'its shared memory is full',
    sqlState: '53200',
    ...trigger('PERFORM pg_advisory_xact_lock(n) FROM generate_series(1, 1000000) n; RETURN NEW;'),
  },
  {
    what: 'its space for temporary files is used up',
    sqlState: '53400',
    ...trigger(
      'PERFORM count(*) FROM (SELECT n FROM generate_series(1, 200000) n ORDER BY -n) sorted; RETURN NEW;',
      `SECURITY DEFINER SET temp_file_limit = '64kB' SET work_mem = '64kB'`,
    ),
  },
  {
    what: 'a file of it is not there',
    sqlState: '58P01',
    ...trigger(`LOAD 'nowhere'; RETURN NEW;`, 'SECURITY DEFINER'),
  },
  {
    what: 'it takes no writes',
    sqlState: '25006',
    begin: ['ALTER ROLE $role SET default_transaction_read_only = on'],
    end: ['ALTER ROLE $role RESET default_transaction_read_only'],
  },
  {
    what: 'the table is not there yet',
    sqlState: '42P01',
    begin: ['ALTER TABLE people RENAME TO away'],
    end: ['ALTER TABLE away RENAME TO people'],
  },
  {
    what: 'a column is not there yet',
    sqlState: '42703',
    begin: ['ALTER TABLE people RENAME data TO away'],
    end: ['ALTER TABLE people RENAME away TO data'],
  },
  {
    what: 'a schema is not there yet',
    sqlState: '3F000',
    ...trigger('CREATE TABLE nowhere.rows (); RETURN NEW;', 'SECURITY DEFINER'),
  },
  {
    what: 'a right is not given yet',
    sqlState: '42501',
    begin: ['REVOKE INSERT, UPDATE ON people FROM $role'],
    end: ['GRANT INSERT, UPDATE ON people TO $role'],
  },
];

/** Lets everything in `database` be done by a role that is no superuser. @returns its URL, and what it is called */
export async function asOrdinaryRole(database: TestDatabase): Promise<{ url: string; role: string }> {
  const url = new URL(database.url);
  const role = `ordinary_${url.pathname.slice(1)}`;
  await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'app'`);
  await database.query(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role}`);
  await database.query(`GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO ${role}`);
  [url.username, url.password] = [role, 'app'];
  return { url: url.href, role };
}

export async function dropRole(database: TestDatabase, role: string): Promise<void> {
  await database.query(`DROP OWNED BY ${role}`);
  await database.query(`DROP ROLE ${role}`);
}

export async function run(
  database: TestDatabase,
  role: string,
  statements: readonly string[],
): Promise<void> {
  for (const text of statements) await database.query(text.replace('$role', role));
}

/** A tablespace of 1 MiB, where this process may make one; what is stored there fills the disk. */
export async function smallDisk(
  database: Pick<TestDatabase, 'query'>,
): Promise<{ name: string; remove: () => Promise<void> } | undefined> {
  const [{ data_directory }] = (await database.query('SHOW data_directory')) as [{ data_directory: string }];
  const { uid, gid } = statSync(data_directory);
  const directory = mkdtempSync(path.join(tmpdir(), 'disk-'));
  try {
    execFileSync(
      'mount',
      ['-t', 'tmpfs', '-o', `size=1m,uid=${uid},gid=${gid},mode=700`, 'tmpfs', directory],
      { stdio: 'pipe' },
    );
  } catch (error) {
    rmSync(directory, { recursive: true });
    process.stderr.write(`A full disk was left out: ${(error as Error).message.split('\n')[0]}\n`);
    return undefined;
  }
  const name = `disk_${path.basename(directory).slice(5).toLowerCase()}`;
  await database.query(`CREATE TABLESPACE ${name} LOCATION '${directory}'`);
  return {
    name,
    remove: async () => {
      await database.query(`DROP TABLESPACE ${name}`);
      execFileSync('umount', [directory]);
      rmSync(directory, { recursive: true });
    },
  };
}
