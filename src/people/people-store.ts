import type { QueryResult } from 'pg';
import type { DataSource } from 'typeorm';
import { failureOf } from '../database/database-failure.js';
import type { Outbox } from '../messaging/outbox.js';
import {
  currentTransaction,
  type Statement,
  type TransactionContext,
} from '../transactions/transaction-context.js';
import type { TransactionOptions } from '../transactions/transaction-options.js';
import type { TransactionRunner } from '../transactions/transaction-runner.js';
import { Batches } from '../transactions/unit/batches.js';
import { toPersonError } from './people.errors.js';
import { peopleStatements, type PeopleStatements } from './people.statements.js';
import type { PersonRow } from './person.entity.js';
import type { PeopleTable } from './table/known-table.js';
import { isMisfit } from './table/shape.js';

/** Sends the statements on the table of people, each as a unit of work, or in the one around it. */
export class PeopleStore {
  private byRow = peopleStatements('people');
  private byContent = peopleStatements('people', undefined, 'content');

  /** People that are asked for together are read together. */
  private readonly reads = new Batches<string, PersonRow | undefined>({
    one: (id) => this.findOne(id, false, true),
    many: (ids) => this.findMany(ids),
    isOfOne: (error) => failureOf(error)?.isLost === false,
  });

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
  find(id: string, isProof = false): Promise<PersonRow | undefined> {
    if (isProof || !this.transactions.mayShare) return this.findOne(id, isProof);
    return this.transactions.share(() => this.reads.add(id));
  }

  private async findOne(id: string, isProof = false, continues = false): Promise<PersonRow | undefined> {
    const statement = isProof ? this.statements.getForUpdate(id) : this.statements.get(id);
    const { rows } = await this.send<PersonRow>(statement, { writes: false, continues });
    return rows[0];
  }

  private async findMany(ids: readonly string[]): Promise<(PersonRow | undefined)[]> {
    // pg's own way to write an array takes longer than the statement.
    const statement = this.statements.getMany(`{${ids.join()}}`);
    const { rows } = await this.send<PersonRow>(statement, { writes: false, continues: true });
    const found = new Map(rows.map((row) => [row.id, row]));
    return ids.map((id) => found.get(id.toLowerCase()));
  }

  /** @throws PersonConflictError, PersonRefusedError the table refuses it */
  async write<Row extends object>(
    statement: Statement,
    options: TransactionOptions = {},
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
    options: TransactionOptions & { writes: boolean; continues?: boolean },
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
