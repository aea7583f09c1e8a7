import { BATCH_WORK, batchesOf, BESIDE } from '../../json/batches.js';
import { WorkSlices } from '../../json/work-slices.js';
import { type RowValues, VALUES_PER_ROW } from './piece.js';

/** People that come one after the other. */
export type Many<Person> = Iterable<Person> | AsyncIterable<Person>;

/**
 * The rows of many people, several at a time and never none, in an array that is theirs until the next are asked for; others have
 * their turn meanwhile. Not a generator, whose end would come behind what it waits for.
 */
export class RowBatches<Person> implements AsyncIterableIterator<RowValues> {
  private readonly source: AsyncIterator<Iterable<Person>>;
  private readonly slices = new WorkSlices();
  private batch: Iterator<Person> | undefined;
  private isOver = false;
  private index = 0;
  private readonly rows: RowValues = [];

  /** @param add checks a person, which stands at `index`, and puts its row behind the others */
  constructor(
    people: Many<Person>,
    private readonly add: (rows: RowValues, person: Person, index: number) => void,
  ) {
    this.source = batchesOf(people);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<RowValues>> {
    const { rows } = this;
    rows.length = 0;
    let work = 0;
    while (work < BATCH_WORK) {
      const person = this.nextOfBatch();
      if (person) {
        this.add(rows, person.value, this.index++);
        work += workOf(rows);
      } else if (rows.length > 0 || !(await this.nextBatch())) break;
    }
    if (this.slices.isOver(work)) await this.slices.giveWay();
    return rows.length > 0 ? { value: rows } : { done: true, value: undefined };
  }

  async return(): Promise<IteratorResult<RowValues>> {
    this.batch?.return?.();
    if (!this.isOver) await this.source.return?.();
    return { done: true, value: undefined };
  }

  /** @returns undefined at its end */
  private nextOfBatch(): IteratorYieldResult<Person> | undefined {
    const { batch } = this;
    // One that ends or throws is not to be told its end.
    this.batch = undefined;
    const next = batch?.next();
    if (!next || next.done) return undefined;
    this.batch = batch;
    return next;
  }

  /** @returns false when there is none */
  private async nextBatch(): Promise<boolean> {
    try {
      const next = await this.source.next();
      this.isOver = next.done ?? false;
      if (!next.done) this.batch = next.value[Symbol.iterator]();
    } catch (error) {
      this.isOver = true;
      throw error;
    }
    return !this.isOver;
  }
}

/** That of the last one. */
const workOf = (rows: RowValues) =>
  BESIDE + rows[rows.length - VALUES_PER_ROW + 1]!.length + (rows[rows.length - 1]?.length ?? 0);
