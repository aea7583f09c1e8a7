import type { Pool } from 'pg';
import { poolOf } from '../../database/pooled-client.js';
import { currentTransaction } from '../../transactions/transaction-context.js';
import type { NewPerson } from '../person.dto.js';
import type { ByteBudget } from '../byte-budget.js';
import { ImportNotRepeatableError } from '../people.errors.js';
import type { PeopleOptions } from '../people.options.js';
import type { PeopleStore } from '../people-store.js';
import type { PersonRows } from '../person-rows.js';
import { importPieces } from './copy.js';
import { DEFAULT_PIECE_MS, type ImportSource, type PaceOptions } from './pace.js';
import { RowPiece } from './piece.js';
import { ImportPieces } from './pieces.js';
import { ImportPlaces, placesOf } from './places.js';

/** How an import reads what it is given. */
export interface ImportOptions {
  /**
   * How long the iterable may bring nothing, in ms; ImportStalledError then, and also when it is slow while others wait for what the
   * import holds. For what comes from outside; left out, it is waited for as long as it takes.
   */
  idleMs?: number;
  /** What is known of where the people come from, so that a person that is long is told from one that does not come. */
  source?: ImportSource;
}

/** How long an import waits for its place where the pool has no limit to that. */
const DEFAULT_PLACE_WAIT_MS = 5000;

/** Stores people as they come, through COPY: as one unit of work, from a place among those that imports may have. */
export class PeopleImporter<Data extends object> {
  private madePlaces: ImportPlaces | undefined;
  /** What has been read once, in whatever attempt: reading it again would import nothing in silence. */
  private readonly imported = new WeakSet<AsyncIterable<unknown>>();

  constructor(
    private readonly store: PeopleStore,
    private readonly rows: PersonRows<Data>,
    private readonly budget: ByteBudget,
    private readonly options: PeopleOptions<Data>,
  ) {}

  async import(
    people: AsyncIterable<NewPerson<Data>>,
    options: ImportOptions,
  ): Promise<{ inserted: number }> {
    const isOneShot = people[Symbol.asyncIterator]() === (people as unknown);
    if (isOneShot && this.imported.has(people)) throw new ImportNotRepeatableError();
    this.imported.add(people);
    const { table } = this.store;
    // What joins a unit of work has its connection already.
    const needsPlace = !this.isInUnit();
    let hasPlace = false;
    const pace = this.paceOf(options, () => hasPlace);
    const read = () => new ImportPieces(this.rows.toRows(people), this.budget, pace);
    let pieces = read();
    try {
      if (!table.isKnown) await table.learn();
      const first = new RowPiece();
      await pieces.fill(first);
      if (first.count === 0) return { inserted: 0 };
      if (needsPlace) await this.places.take();
      hasPlace = needsPlace;
      let isRepeated = false;
      const inserted = await this.store.run(isOneShot ? { maxAttempts: 1 } : {}, async (transaction) => {
        if (isRepeated) {
          await pieces.end();
          pieces = read();
          first.clear();
          await pieces.fill(first);
        }
        isRepeated = true;
        return importPieces(transaction, this.store.statements, first, (piece) => pieces.fill(piece));
      });
      this.store.published();
      return { inserted };
    } finally {
      await pieces.end();
      if (hasPlace) this.places.give();
    }
  }

  /** Made by the first import: the pool is not there before. */
  private get places(): ImportPlaces {
    const pool = poolOf(this.store.dataSource);
    return (this.madePlaces ??= new ImportPlaces(
      placesOf(pool.options.max, this.options.importPlaces),
      waitOf(pool),
    ));
  }

  private isInUnit(): boolean {
    let context = currentTransaction();
    while (context && context.dataSource !== this.store.dataSource) context = context.parent;
    return context !== undefined;
  }

  private paceOf(
    { idleMs, source }: ImportOptions,
    hasPlace: () => boolean,
  ): Omit<PaceOptions, 'onStalled'> | undefined {
    if (idleMs === undefined) return undefined;
    const { budget, places } = this;
    const pool = poolOf(this.store.dataSource);
    const { importPieceMs = DEFAULT_PIECE_MS } = this.options;
    // Of a pool of one nobody else has a connection.
    const keepsAll = () => hasPlace() && pool.options.max === 1 && pool.waitingCount > 0;
    return {
      idleMs,
      source,
      pieceMs: () => (keepsAll() ? Math.min(importPieceMs, waitOf(pool) / 2) : importPieceMs),
      isWanted: () => keepsAll() || (hasPlace() && places.areWanted) || budget.used > budget.limit / 2,
    };
  }
}

const waitOf = ({ options }: Pool): number => options.connectionTimeoutMillis || DEFAULT_PLACE_WAIT_MS;
