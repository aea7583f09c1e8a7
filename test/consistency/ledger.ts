import type { Database } from './database.js';

/** What a client was told at last of something that it had asked for: it is there, it has changed nothing, or nobody knows. */
export type Told = 'done' | 'nothing' | 'unknown';

/** A change as the audit has it: a row that was written with a name of its own, or a person that was removed. */
export type Change = `INSERT ${string}` | `UPDATE ${string}` | `DELETE ${string}`;

/** A person as its client knows it; nobody else changes it. */
export interface Known {
  id: string;
  name: string;
  data: Record<string, unknown> | null;
  /** Without the quotes of its ETag; undefined where no answer has told it. */
  version: string | undefined;
}

/** What clients were told, to be held against what the database has seen. */
export class Ledger {
  private readonly told = new Map<Change, { told: Told; rows: number }>();
  /** People that are there, for all that is known. */
  readonly people = new Map<string, Known>();

  /** @param rows how many rows the change has, all or none */
  note(change: Change, told: Told, rows = 1): void {
    this.told.set(change, { told, rows });
  }

  /** @returns what is not as it was told */
  async compare(database: Database): Promise<string[]> {
    const violations: string[] = [];
    const made = new Map(
      (
        await database.query<{ change: Change; n: number }>(
          'SELECT change, count(*)::int AS n FROM consistency_audit GROUP BY change',
        )
      ).map(({ change, n }) => [change, n]),
    );
    for (const [change, { told, rows }] of this.told) {
      const n = made.get(change) ?? 0;
      const isTrue = n === rows ? told !== 'nothing' : n === 0 && told !== 'done';
      if (!isTrue) violations.push(`${change} was told as ${told}; of its ${rows} rows there were ${n}`);
    }
    for (const change of made.keys())
      if (!this.told.has(change)) violations.push(`${change} was made and never asked for`);
    for (const person of this.people.values()) violations.push(...(await differences(person, database)));
    return violations;
  }
}

/** @returns how the person that is stored differs from the one that was told */
export async function differences({ id, name, data, version }: Known, database: Database): Promise<string[]> {
  const rows = await database.query<{ name: string; data: object | null; version: string }>(
    'SELECT name, data, xmin::text || ctid::text AS version FROM people WHERE id = $1',
    [id],
  );
  const [row] = rows;
  if (!row) return [`${id} (${name}) was told and is not there`];
  const found: string[] = [];
  if (row.name !== name) found.push(`${id} was told as ${name} and is ${row.name}`);
  if (sorted(row.data) !== sorted(data))
    found.push(`${id} was told with ${sorted(data)} and has ${sorted(row.data)}`);
  if (version !== undefined && row.version !== version)
    found.push(`${id} (${name}) was told at version ${version} and is at ${row.version}`);
  return found;
}

const sorted = (data: object | null) =>
  JSON.stringify(data && Object.entries(data).sort(([a], [b]) => (a < b ? -1 : 1)));

/** Writes a row for each change of a person that is no account, in the transaction of the change. */
export const AUDIT = `
  CREATE TABLE consistency_audit (change text NOT NULL);
  CREATE FUNCTION consistency_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO consistency_audit
      VALUES (TG_OP || ' ' || CASE TG_OP WHEN 'DELETE' THEN OLD.id::text ELSE NEW.name END);
      RETURN NULL;
    END $$;
  CREATE TRIGGER consistency_audit_inserts AFTER INSERT ON people
    FOR EACH ROW WHEN (NEW.name NOT LIKE 'account %') EXECUTE FUNCTION consistency_audit();
  CREATE TRIGGER consistency_audit_updates AFTER UPDATE ON people
    FOR EACH ROW WHEN (NEW.name NOT LIKE 'account %') EXECUTE FUNCTION consistency_audit();
  CREATE TRIGGER consistency_audit_deletes AFTER DELETE ON people
    FOR EACH ROW EXECUTE FUNCTION consistency_audit();`;
