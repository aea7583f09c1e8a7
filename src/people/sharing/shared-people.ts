// people/sharing/: Single operations that are ready together share a statement and its commit.
// Promises: each caller has its own result and its own error, as if it had been alone; nobody waits for another's lock.
// May know: the statements of people, and how calls are gathered; not what is made of a row.

import type { Span } from '@opentelemetry/api';
import { outgoingJson } from '../../tracing/trace-context.js';
import { Batches } from '../../transactions/sharing/batches.js';
import type { Statement } from '../../transactions/transaction-context.js';
import type { TransactionOutcomeUnknownError } from '../../transactions/transaction-errors.js';
import { DEFAULT_MAX_ATTEMPTS } from '../../transactions/retry-policy.js';
import type { CopyRow } from '../importing/copy.js';
import type { PeopleStore, WriteOptions } from '../people-store.js';
import { type PersonRow, rowsById } from '../person.entity.js';
import type { PeopleTable } from '../table/known-table.js';
import type { WriteDoubt } from '../write-doubt.js';

/** A person to be stored. */
interface Insert {
  row: CopyRow;
  /** Of whoever asks for it, for the event. */
  trace: string | null;
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
  /** Of whoever asks for it, for the event. */
  trace: string | null;
}

/** What was accepted is finished, also while the application stops. */
const CONTINUES = { continues: true };
/** A conflict is told at once: each of them goes on alone. */
const ONCE = { ...CONTINUES, beforeRetry: () => false };

/** A row that is longer, in characters, travels by itself. */
const SHORT_CHARACTERS = 8192;

/** The operations on one person: what is ready together travels together, where nothing speaks against it. */
export class SharedPeople {
  // Of each null is: there is no row, or none was changed.
  private readonly reads: Batches<string, PersonRow | null>;
  /** Each has an id of its own. */
  private readonly inserts: Batches<Insert, PersonRow | null>;
  /** Each is of another person, and has the turn of its key. */
  private readonly updates: Batches<Change, PersonRow | null>;
  private readonly removals: Batches<Change, PersonRow | null>;

  constructor(private readonly store: PeopleStore) {
    this.reads = new Batches({
      alone: async (id) => (await store.find(id, false, CONTINUES)) ?? null,
      together: (ids) => this.readTogether(ids),
    });
    this.inserts = new Batches<Insert, PersonRow | null>({
      alone: async (insert, tried, doubt) =>
        (await this.insertAlone(insert, this.after(tried, insert, doubt))) ?? null,
      together: (inserts) => {
        const rows = inserts.map(({ row }) => row);
        return this.writeTogether(store.statements.createShared(rows, tracesOf(rows, inserts)), rows);
      },
      // Its key makes it harmless.
      repeats: () => true,
    });
    this.updates = this.changes('updateShared');
    this.removals = this.changes('removeShared');
  }

  /** What is known of the table. */
  get table(): PeopleTable {
    return this.store.table;
  }

  /** @param isProof see `PeopleStore.find` */
  async find(id: string, isProof = false): Promise<PersonRow | undefined> {
    if (isProof || !this.mayShare()) return this.store.find(id, isProof);
    return (await this.store.transactions.share((span) => this.reads.add(id, span))) ?? undefined;
  }

  /**
   * Stores a row where its id is free.
   *
   * @param isOurs true: nobody else knows the id, so that others' locks on it are not to be waited for
   * @returns undefined where the id is taken
   * @throws PersonConflictError, PersonRefusedError the table refuses it
   */
  async insert(row: CopyRow, isOurs: boolean, doubt: WriteDoubt): Promise<PersonRow | undefined> {
    const insert = { row, doubt, trace: outgoingJson() };
    if (!isOurs || !this.mayShare() || !isShort(row)) return this.insertAlone(insert);
    return (await this.store.transactions.share((span) => this.inserts.add(insert, span))) ?? undefined;
  }

  /**
   * Changes or removes a person, in the turn of its key.
   *
   * @returns the row as it was changed or removed; undefined where none was
   * @throws PersonRefusedError the table refuses it
   */
  async change(wanted: Omit<Change, 'trace'>, conflictKey: string): Promise<PersonRow | undefined> {
    const change = { ...wanted, trace: outgoingJson() };
    if (!this.mayShare(conflictKey) || !isShort(change.values))
      return this.changeAlone(change, { conflictKey });
    const batches = change.kind === 'update' ? this.updates : this.removals;
    const send = (span?: Span) => batches.add(change, span);
    return (await this.store.transactions.share(send, conflictKey)) ?? undefined;
  }

  private mayShare(conflictKey?: string): boolean {
    return this.store.table.hasRowVersions && this.store.transactions.mayShare(conflictKey);
  }

  /** Its key makes it harmless to store a person twice, so an answer that was lost is asked for by doing it again. */
  private insertAlone(
    { row, doubt, trace }: Insert,
    options: WriteOptions = {},
  ): Promise<PersonRow | undefined> {
    const statement = this.store.statements.create(row, trace);
    return this.writeAlone(statement, doubt, { ...options, idempotent: true });
  }

  private changeAlone(
    { kind, values, idempotent, doubt, trace }: Change,
    options: WriteOptions,
  ): Promise<PersonRow | undefined> {
    return this.writeAlone(this.store.statements[kind](values, trace), doubt, { ...options, idempotent });
  }

  private async writeAlone(
    statement: Statement,
    { beforeRetry }: WriteDoubt,
    options: WriteOptions,
  ): Promise<PersonRow | undefined> {
    return (await this.store.write<PersonRow>(statement, { ...options, beforeRetry })).rows[0];
  }

  private changes(shared: 'updateShared' | 'removeShared') {
    return new Batches<Change, PersonRow | null>({
      alone: async (change, tried, doubt) =>
        (await this.changeAlone(change, this.after(tried, change, doubt))) ?? null,
      together: (changes) => {
        const rows = changes.map(({ values }) => values);
        return this.writeTogether(this.store.statements[shared](rows, tracesOf(rows, changes)), rows);
      },
      repeats: ({ idempotent }) => idempotent,
    });
  }

  private async readTogether(ids: readonly string[]): Promise<(PersonRow | null | undefined)[]> {
    // pg's own way to write an array takes longer than the statement.
    const statement = this.store.statements.getShared(`{${ids.join()}}`);
    const { rows } = await this.store.send<PersonRow>(statement, { ...ONCE, writes: false });
    const found = rowsById(rows);
    return ids.map((id) => {
      const row = found.get(id.toLowerCase());
      if (!row) return null;
      return row.withheld ? undefined : row;
    });
  }

  /** Those that are not among the rows it gives are sent alone: it does not say why. */
  private async writeTogether(
    statement: Statement,
    rows: readonly (readonly unknown[])[],
  ): Promise<(PersonRow | undefined)[]> {
    const written = await this.store.write<PersonRow>(statement, ONCE);
    const found = rowsById(written.rows);
    return rows.map(([id]) => found.get((id as string).toLowerCase()));
  }

  /** How one is sent alone that was tried together with others. */
  private after(
    tried: number,
    sent: { doubt: WriteDoubt },
    error: TransactionOutcomeUnknownError | undefined,
  ): WriteOptions {
    if (tried === 0) return CONTINUES;
    if (error) sent.doubt.error ??= error;
    const { maxAttempts = DEFAULT_MAX_ATTEMPTS } = this.store.transactions.settings;
    return { ...CONTINUES, maxAttempts: maxAttempts - tried, ...(error && { doubt: error }) };
  }
}

function isShort(values: readonly unknown[]): boolean {
  let characters = 0;
  for (const value of values) if (typeof value === 'string') characters += value.length;
  return characters <= SHORT_CHARACTERS;
}

/** As JSON, by the ids that the rows begin with; null where nobody has one. */
function tracesOf(
  rows: readonly (readonly unknown[])[],
  writes: readonly { trace: string | null }[],
): string | null {
  const members = writes.flatMap(({ trace }, place) =>
    trace === null ? [] : [`"${(rows[place]![0] as string).toLowerCase()}":${trace}`],
  );
  return members.length > 0 ? `{${members.join()}}` : null;
}
