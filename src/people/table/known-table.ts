import { Inject, Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import { failureOf, hasSqlState } from '../../database/database-failure.js';
import { INVALID_COLUMN_REFERENCE } from '../../database/postgres-errors.js';
import { isMigratedLater } from '../../database/table-name.js';
import { sameJsonb } from '../../json/jsonb.js';
import { sameJson } from '../../json/text.js';
import { TransactionRunner } from '../../transactions/transaction-runner.js';
import { PEOPLE_DATA_SOURCE } from '../people.options.js';
import { Person } from '../person.entity.js';
import { differencesOf } from './fit.js';
import { insertingInto, isNotUnderstood, shapeOf, type TableShape } from './shape.js';

/** How long an answer to readiness serves: probes may come from many places. */
const FRESH_MS = 500;

/** Of an engine whose catalog is another one: its columns can't be compared, and nothing is built on. */
const UNKNOWN: Known = { isJsonb: false, hasRowVersions: false };

/** Asks the database, and gives the rows. */
type Query = <Row>(text: string, values?: readonly unknown[]) => Promise<Row[]>;

/** What the operations have to know of the table. */
interface Known {
  isJsonb: boolean;
  hasRowVersions: boolean;
}

/** The table `people` as it is in this database, and whether it fits. */
@Injectable()
export class PeopleTable implements OnApplicationBootstrap {
  private readonly logger = new Logger('PeopleModule');
  private known: Known | undefined;
  private isOutdated = false;
  private latest: { at: number; reason: Promise<string | undefined> } | undefined;

  constructor(
    private readonly transactions: TransactionRunner,
    @Inject(PEOPLE_DATA_SOURCE) private readonly dataSource: DataSource,
  ) {}

  /** The table's name as SQL has it, with the schema of the entity where it has one, and the DataSource's `entityPrefix`. */
  get name(): string {
    const { schema, tableName } = this.dataSource.getMetadata(Person);
    if (schema) return `"${schema}"."${tableName}"`;
    return tableName === 'people' ? tableName : `"${tableName}"`;
  }

  /** False until the table has been seen, and where it may be another since. */
  get isKnown(): boolean {
    return this.known !== undefined && !this.isOutdated;
  }

  /** False where its rows have no `xmin` and `ctid` that can be read. */
  get hasRowVersions(): boolean {
    return this.known?.hasRowVersions ?? true;
  }

  /** True where `data` is `jsonb`. */
  get isJsonb(): boolean {
    return this.known?.isJsonb ?? false;
  }

  /** Whether two texts of `data` are the same to the column. */
  isSame(stored: string | null, given: string | null): boolean {
    const same = this.isJsonb ? sameJsonb : sameJson;
    return same(stored ?? 'null', given ?? 'null');
  }

  async onApplicationBootstrap(): Promise<void> {
    // What keeps the database from answering is told by whoever needs it.
    const shape = await this.look().catch(() => undefined);
    if (!shape || (shape.kind === null && isMigratedLater(this.dataSource))) return;
    // A host may migrate later: a table that is not there is no error yet.
    const level = shape.kind === null ? 'warn' : 'error';
    for (const difference of differencesOf(shape, this.name)) this.logger[level](difference);
  }

  /** Asks what the table is like, in the unit of work around it if there is one. @throws what a statement throws */
  async learn(): Promise<void> {
    try {
      const { rows } = await this.transactions.runStatement<TableShape>(shapeOf(this.name), {
        writes: false,
      });
      this.remember(seen(rows[0]!));
    } catch (error) {
      if (!isNotUnderstood(error)) throw error;
      this.remember(UNKNOWN);
    }
  }

  /** It may be another than it was: the next who needs to know it asks. What runs goes on with what was known. */
  doubt(): void {
    this.isOutdated = true;
  }

  /** Each difference from what is needed, as a sentence; empty when the table fits. @throws what the database says */
  async differences(): Promise<string[]> {
    const shape = await this.look();
    return shape ? differencesOf(shape, this.name) : [];
  }

  /**
   * What is to be told where the table does not fit; undefined where it does.
   *
   * @param options.mayBeAbsent true: a table that is not there is no misfit
   * @throws what the database says
   */
  async misfit({ mayBeAbsent = false } = {}): Promise<AggregateError | undefined> {
    const shape = await this.look();
    const differences = shape && !(mayBeAbsent && shape.kind === null) ? differencesOf(shape, this.name) : [];
    if (differences.length === 0) return undefined;
    return new AggregateError(
      differences.map((difference) => new Error(difference)),
      `The table ${this.name} does not fit. Mend in it what follows, or use another database (DATABASE_URL).`,
    );
  }

  /**
   * For readiness: the differences, as they were half a second ago at most; undefined when it fits.
   *
   * @param query asks the database; default: the DataSource's pool
   */
  unavailableReason(query?: Query): Promise<string | undefined> {
    const now = performance.now();
    if (!this.latest || now - this.latest.at > FRESH_MS)
      this.latest = { at: now, reason: this.reason(query) };
    return this.latest.reason;
  }

  private async reason(query?: Query): Promise<string | undefined> {
    try {
      const shape = await this.look(query);
      return (shape && differencesOf(shape, this.name).join(' ')) || undefined;
    } catch (error) {
      // A database that did not answer may do so at once.
      this.latest = undefined;
      return (error as Error).message || (error as Error).name;
    }
  }

  private readonly ofPool: Query = (text, values) => this.dataSource.query(text, values as unknown[]);

  /** @returns undefined where the server does not understand the question */
  private async look(query: Query = this.ofPool): Promise<TableShape | undefined> {
    const { text, values } = shapeOf(this.name);
    try {
      const shape = (await query<TableShape>(text, values))[0]!;
      this.remember(seen(shape));
      return shape.kind === 'v' ? { ...shape, isWithoutKey: await this.isViewWithoutKey(query) } : shape;
    } catch (error) {
      if (!isNotUnderstood(error)) throw error;
      this.remember(UNKNOWN);
      return undefined;
    }
  }

  private async isViewWithoutKey(query: Query): Promise<boolean> {
    try {
      await query(insertingInto(this.name));
      return false;
    } catch (error) {
      const failure = failureOf(error);
      if (!failure || failure.isLost) throw error;
      // Whatever else keeps it from being planned is told by the columns and the rights.
      return hasSqlState(error, INVALID_COLUMN_REFERENCE);
    }
  }

  private remember(known: Known | undefined): void {
    this.known = known;
    this.isOutdated = false;
  }
}

/** A table that is not there may be anything once it is. */
function seen({ kind, columns, hasRowVersions }: TableShape): Known | undefined {
  if (kind === null) return undefined;
  const isJsonb = columns.some(({ name, type }) => name === 'data' && type === 'jsonb');
  return { isJsonb, hasRowVersions };
}
