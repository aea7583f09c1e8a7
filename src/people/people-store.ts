import type { QueryResult } from 'pg';
import type { DataSource } from 'typeorm';
import { DatabaseUnavailableError, PoolExhaustedError } from '../database/postgres-errors.js';
import type { Outbox } from '../messaging/outbox.js';
import {
  currentTransaction,
  type Statement,
  type TransactionContext,
} from '../transactions/transaction-context.js';
import {
  TransactionOutcomeUnknownError,
  TransactionRetriesExhaustedError,
} from '../transactions/transaction-errors.js';
import type { TransactionOptions } from '../transactions/transaction-options.js';
import type { TransactionRunner } from '../transactions/transaction-runner.js';
import { Batches } from '../transactions/unit/batches.js';
import type { CopyRow } from './importing/copy.js';
import { toPersonError } from './people.errors.js';
import { peopleStatements, type PeopleStatements } from './people.statements.js';
import type { PersonRow } from './person.entity.js';
import type { PeopleTable } from './table/known-table.js';
import { isMisfit } from './table/shape.js';

type BeforeRetry = NonNullable<TransactionOptions['beforeRetry']>;
interface Insert {
  row: CopyRow;
  beforeRetry: BeforeRetry;
}

/** Sends the statements on the table of people, each as a unit of work, or in the one around it. */
export class PeopleStore {
  private byRow = peopleStatements('people');
  private byContent = peopleStatements('people', undefined, 'content');

  /** People that are asked for together are read together. */
  private readonly reads = new Batches<string, PersonRow | undefined>({
    one: (id) => this.findOne(id, false, true),
    many: (ids) => this.findMany(ids),
    isOfOne,
  });

  /** The same of people that are stored. Two of one id are not stored together: only the first would know that it was. */
  private readonly inserts = new Batches<Insert, PersonRow | undefined>({
    one: (insert) => this.insertOne(insert, true),
    many: (inserts) => this.insertMany(inserts),
    isOfOne,
    keyOf: ({ row: [id] }) => id,
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

  /**
   * Stores a row where its id is free. An answer that was lost is asked for by doing it again, which its key makes harmless.
   *
   * @returns undefined where the id is taken, also by an attempt whose answer was lost
   * @throws PersonConflictError, PersonRefusedError the table refuses it
   */
  insert(row: CopyRow, beforeRetry: BeforeRetry): Promise<PersonRow | undefined> {
    const insert = { row, beforeRetry };
    if (!this.transactions.mayShare) return this.insertOne(insert);
    return this.transactions.share(() => this.inserts.add(insert));
  }

  private async insertOne(
    { row: [id, name, data], beforeRetry }: Insert,
    continues = false,
  ): Promise<PersonRow | undefined> {
    const statement = this.statements.create(id, name, data);
    const { rows } = await this.write<PersonRow>(statement, { idempotent: true, beforeRetry, continues });
    return rows[0];
  }

  private async insertMany(inserts: readonly Insert[]): Promise<(PersonRow | undefined)[]> {
    // In one order, so that two statements never wait for each other.
    const sorted = inserts.map(({ row }) => row).sort(([a], [b]) => (a < b ? -1 : 1));
    const { rows } = await this.write<PersonRow>(this.statements.createShared(sorted), {
      idempotent: true,
      beforeRetry: async (retry) => {
        for (const { beforeRetry } of inserts) await beforeRetry(retry);
      },
      continues: true,
    });
    const stored = new Map(rows.map((row) => [row.id, row]));
    return inserts.map(({ row: [id] }) => stored.get(id));
  }

  /** @throws PersonConflictError, PersonRefusedError the table refuses it */
  async write<Row extends object>(
    statement: Statement,
    options: TransactionOptions & { continues?: boolean } = {},
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

/** False for what would meet each of them alone as well, and for what leaves it open whether they were stored. */
const isOfOne = (error: unknown): boolean =>
  ![
    PoolExhaustedError,
    DatabaseUnavailableError,
    TransactionRetriesExhaustedError,
    TransactionOutcomeUnknownError,
  ].some((kind) => error instanceof kind);
