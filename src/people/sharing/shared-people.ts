// people/sharing/: Single operations that are ready together share a statement and its commit.
// Promises: each caller has its own result and its own error, as if it had been alone; nobody waits for another's lock.
// May know: the statements of people, and how calls are gathered; not what is made of a row.

import { Batches } from '../../transactions/unit/batches.js';
import type { Statement } from '../../transactions/transaction-context.js';
import type { TransactionOutcomeUnknownError } from '../../transactions/transaction-errors.js';
import { DEFAULT_MAX_ATTEMPTS } from '../../transactions/retry-policy.js';
import type { CopyRow } from '../importing/copy.js';
import type { PeopleStore } from '../people-store.js';
import type { PersonRow } from '../person.entity.js';
import type { WriteDoubt } from '../write-doubt.js';

/** A person to be stored. */
export interface Insert {
  row: CopyRow;
  doubt: WriteDoubt;
}

/** A change of one person. */
export interface Change {
  kind: 'update' | 'remove';
  /** Those of the statement of that name: the id first. */
  values: readonly unknown[];
  /** True where it may be applied twice. */
  idempotent: boolean;
  doubt: WriteDoubt;
}

/** What was accepted is finished, also while the application stops. */
const CONTINUES = { continues: true };
/** A conflict is told at once: each of them goes on alone. */
const ONCE = { ...CONTINUES, beforeRetry: () => false };

/** Gathers what single operations send. Of each null is: there is no row, or none was changed. */
export class SharedPeople {
  readonly reads: Batches<string, PersonRow | null>;
  /** Each has an id of its own. */
  readonly inserts: Batches<Insert, PersonRow | null>;
  /** Each is of another person, and has the turn of its key. */
  readonly updates: Batches<Change, PersonRow | null>;
  /** As for `updates`. */
  readonly removals: Batches<Change, PersonRow | null>;

  constructor(private readonly store: PeopleStore) {
    this.reads = new Batches({
      alone: async (id) => (await store.findAlone(id, CONTINUES)) ?? null,
      together: (ids) => this.read(ids),
    });
    this.inserts = new Batches<Insert, PersonRow | null>({
      alone: async (insert, tried) => (await store.insertAlone(insert, this.after(tried))) ?? null,
      together: (inserts) => {
        const rows = inserts.map(({ row }) => row);
        return this.write(store.statements.createShared(rows), rows);
      },
      repeats: inDoubt,
    });
    const alone = async (change: Change, tried: number) =>
      (await store.changeAlone(change, this.after(tried))) ?? null;
    const repeats = (change: Change, doubt: TransactionOutcomeUnknownError) =>
      change.idempotent && inDoubt(change, doubt);
    this.updates = new Batches({
      alone,
      together: (changes) => this.change('updateShared', changes),
      repeats,
    });
    this.removals = new Batches({
      alone,
      together: (changes) => this.change('removeShared', changes),
      repeats,
    });
  }

  private async read(ids: readonly string[]): Promise<(PersonRow | null | undefined)[]> {
    // pg's own way to write an array takes longer than the statement.
    const statement = this.store.statements.getShared(`{${ids.join()}}`);
    const { rows } = await this.store.send<PersonRow>(statement, { ...ONCE, writes: false });
    const found = new Map(rows.map((row) => [row.id, row]));
    return ids.map((id) => {
      const row = found.get(id.toLowerCase());
      if (!row) return null;
      return row.withheld ? undefined : row;
    });
  }

  private change(
    statement: 'updateShared' | 'removeShared',
    changes: readonly Change[],
  ): Promise<(PersonRow | undefined)[]> {
    const rows = changes.map(({ values }) => values);
    return this.write(this.store.statements[statement](rows), rows);
  }

  /** Those that are not among the rows it gives are sent alone: it does not say why. */
  private async write(
    statement: Statement,
    rows: readonly (readonly unknown[])[],
  ): Promise<(PersonRow | undefined)[]> {
    const written = await this.store.write<PersonRow>(statement, ONCE);
    const byId = new Map(written.rows.map((row) => [row.id, row]));
    return rows.map(([id]) => byId.get((id as string).toLowerCase()));
  }

  /** What is left to one that has met a conflict together with others. */
  private after(tried: number): { continues: boolean; maxAttempts?: number } {
    if (tried === 0) return CONTINUES;
    const { maxAttempts = DEFAULT_MAX_ATTEMPTS } = this.store.transactions.settings;
    return { ...CONTINUES, maxAttempts: maxAttempts - tried };
  }
}

/** Its key makes it harmless to store a person twice. */
function inDoubt({ doubt }: { doubt: WriteDoubt }, error: TransactionOutcomeUnknownError): true {
  doubt.error ??= error;
  return true;
}
