import type { QueryResult } from 'pg';
import type { DataSource } from 'typeorm';
import type { Outbox } from '../messaging/outbox.js';
import {
  currentTransaction,
  type Statement,
  type TransactionContext,
} from '../transactions/transaction-context.js';
import type { TransactionOptions } from '../transactions/transaction-options.js';
import type { TransactionRunner, UnitOptions } from '../transactions/transaction-runner.js';
import { toPersonError } from './people.errors.js';
import { type EventTable, peopleStatements, type PeopleStatements } from './people.statements.js';
import type { PersonRow } from './person.entity.js';
import type { PeopleTable } from './table/known-table.js';
import { isMisfit } from './table/shape.js';

/** `continues`: part of something that was begun before the application stopped. */
export type WriteOptions = TransactionOptions & Pick<UnitOptions, 'continues' | 'doubt'>;

/** Sends the statements on the table of people, each as a unit of work, or in the one around it. */
export class PeopleStore {
  private readonly made: (PeopleStatements | undefined)[] = [];

  constructor(
    readonly transactions: TransactionRunner,
    readonly dataSource: DataSource,
    readonly table: PeopleTable,
    private readonly outbox: Outbox,
    private readonly hasEvents: boolean,
  ) {}

  /** Where changes write their events; undefined where none are published. */
  get eventTable(): EventTable | undefined {
    return this.hasEvents ? { name: this.outbox.table, hasTrace: this.outbox.hasTrace } : undefined;
  }

  /** Those that suit the tables as they were when they were last looked at. */
  get statements(): PeopleStatements {
    const { hasRowVersions } = this.table;
    const hasTrace = this.hasEvents && this.outbox.hasTrace;
    return (this.made[(hasRowVersions ? 0 : 1) + (hasTrace ? 2 : 0)] ??= peopleStatements(
      this.table.name,
      this.eventTable,
      hasRowVersions ? 'row' : 'content',
    ));
  }

  /**
   * The row of one person.
   *
   * @param isProof true: asks with a lock, which a standby refuses. One that was the primary may have rows that no other server has.
   */
  async find(
    id: string,
    isProof: boolean,
    options: { continues?: boolean } = {},
  ): Promise<PersonRow | undefined> {
    const statement = isProof ? this.statements.getForUpdate(id) : this.statements.get(id);
    return (await this.send<PersonRow>(statement, { ...options, writes: false })).rows[0];
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
      if (isMisfit(error)) {
        this.table.doubt();
        this.outbox.doubt();
      }
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
