import type { QueryResult } from 'pg';
import type { DataSource } from 'typeorm';
import type { Outbox } from '../messaging/outbox.js';
import {
  currentTransaction,
  type Statement,
  type TransactionContext,
} from '../transactions/transaction-context.js';
import type { TransactionOptions } from '../transactions/transaction-options.js';
import type { TransactionRunner } from '../transactions/transaction-runner.js';
import type { CopyRow } from './importing/copy.js';
import { toPersonError } from './people.errors.js';
import { peopleStatements, type PeopleStatements } from './people.statements.js';
import type { PersonRow } from './person.entity.js';
import { type Change, type Insert, SharedPeople } from './sharing/shared-people.js';
import type { PeopleTable } from './table/known-table.js';
import { isMisfit } from './table/shape.js';
import type { WriteDoubt } from './write-doubt.js';

/** A row that is longer, in characters, travels by itself. */
const SHORT_CHARACTERS = 8192;

type WriteOptions = TransactionOptions & { continues?: boolean };

/** Sends the statements on the table of people, each as a unit of work, or in the one around it. */
export class PeopleStore {
  private byRow = peopleStatements('people');
  private byContent = peopleStatements('people', undefined, 'content');
  private readonly shared = new SharedPeople(this);

  constructor(
    readonly transactions: TransactionRunner,
    readonly dataSource: DataSource,
    readonly table: PeopleTable,
    private readonly outbox: Outbox,
    private readonly hasEvents: boolean,
  ) {}

  /** Once the DataSource is there, which knows the schema. */
  nameTables(): void {
    const outbox = this.hasEvents ? this.outbox.table : undefined;
    this.byRow = peopleStatements(this.table.name, outbox);
    this.byContent = peopleStatements(this.table.name, outbox, 'content');
  }

  /** Those that suit the table as it was when it was last looked at. */
  get statements(): PeopleStatements {
    return this.table.hasRowVersions ? this.byRow : this.byContent;
  }

  /**
   * @param isProof true: asks with a lock, which a standby refuses. One that was the primary may have rows that no other server has.
   */
  async find(id: string, isProof = false): Promise<PersonRow | undefined> {
    if (isProof) return this.rowOf(this.statements.getForUpdate(id), { writes: false });
    if (!this.mayShare()) return this.findAlone(id);
    return (await this.transactions.share(() => this.shared.reads.add(id))) ?? undefined;
  }

  findAlone(id: string, options: { continues?: boolean } = {}): Promise<PersonRow | undefined> {
    return this.rowOf(this.statements.get(id), { ...options, writes: false });
  }

  /**
   * Stores a row where its id is free.
   *
   * @param isOurs true: nobody else knows the id, so that others' locks on it are not to be waited for
   * @returns undefined where the id is taken
   * @throws PersonConflictError, PersonRefusedError the table refuses it
   */
  async insert(row: CopyRow, isOurs: boolean, doubt: WriteDoubt): Promise<PersonRow | undefined> {
    const insert = { row, doubt };
    if (!isOurs || !this.mayShare() || !isShort(row)) return this.insertAlone(insert);
    return (await this.transactions.share(() => this.shared.inserts.add(insert))) ?? undefined;
  }

  /** Its key makes it harmless to store a person twice, so an answer that was lost is asked for by doing it again. */
  async insertAlone({ row, doubt }: Insert, options: WriteOptions = {}): Promise<PersonRow | undefined> {
    const { beforeRetry } = doubt;
    const statement = this.statements.create(...row);
    return (await this.write<PersonRow>(statement, { ...options, idempotent: true, beforeRetry })).rows[0];
  }

  /**
   * Changes or removes a person, in the turn of its key.
   *
   * @returns the row as it was changed or removed; undefined where none was
   * @throws PersonRefusedError the table refuses it
   */
  async change(change: Change, conflictKey: string): Promise<PersonRow | undefined> {
    if (!this.mayShare(conflictKey) || !isShort(change.values))
      return this.changeAlone(change, { conflictKey });
    const shared = change.kind === 'update' ? this.shared.updates : this.shared.removals;
    return (await this.transactions.share(() => shared.add(change), conflictKey)) ?? undefined;
  }

  async changeAlone(
    { kind, values, idempotent, doubt }: Change,
    options: WriteOptions,
  ): Promise<PersonRow | undefined> {
    const { beforeRetry } = doubt;
    const statement = this.statements[kind](...values);
    return (await this.write<PersonRow>(statement, { ...options, idempotent, beforeRetry })).rows[0];
  }

  private mayShare(conflictKey?: string): boolean {
    return this.table.hasRowVersions && this.transactions.mayShare(conflictKey);
  }

  private async rowOf(
    statement: Statement,
    options: { writes: false; continues?: boolean },
  ): Promise<PersonRow | undefined> {
    return (await this.send<PersonRow>(statement, options)).rows[0];
  }

  /** @throws PersonConflictError, PersonRefusedError the table refuses it */
  async write<Row extends object>(
    statement: Statement,
    options: WriteOptions = {},
  ): Promise<QueryResult<Row>> {
    try {
      const result = await this.send<Row>(statement, { ...options, writes: true });
      this.published();
      return result;
    } catch (error) {
      throw toPersonError(error);
    }
  }

  /** Several statements as one unit of work. @throws as `write` */
  async run<T>(options: TransactionOptions, work: (unit: TransactionContext) => Promise<T>): Promise<T> {
    try {
      return await this.transactions.run(options, work);
    } catch (error) {
      throw toPersonError(error);
    }
  }

  async send<Row extends object>(
    statement: Statement,
    options: WriteOptions & { writes: boolean },
  ): Promise<QueryResult<Row>> {
    try {
      return await this.transactions.runStatement<Row>(statement, options);
    } catch (error) {
      // As where a view without system columns has taken the table's place: the next operation looks what is there now.
      if (isMisfit(error)) this.table.doubt();
      throw error;
    }
  }

  /** In a unit of work around this one the events are there once that is committed; polling is behind it. */
  published(): void {
    if (!this.hasEvents) return;
    const outer = currentTransaction();
    if (outer && !outer.hasEnded) outer.afterCommit(() => this.outbox.wake());
    else this.outbox.wake();
  }
}

const isShort = (values: readonly unknown[]): boolean => {
  let characters = 0;
  for (const value of values) if (typeof value === 'string') characters += value.length;
  return characters <= SHORT_CHARACTERS;
};
