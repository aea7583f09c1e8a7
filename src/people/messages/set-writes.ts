import { PersonRefusedError } from '../people.errors.js';
import type { PeopleStore } from '../people-store.js';
import { type PersonRow, rowsById } from '../person.entity.js';
import type { ChangedRow, CreatedRow, RemovedRow, SetStatements } from './set-statements.js';

/** What is to be done with one person. */
export type SetWrite =
  | { kind: 'create'; row: CreatedRow; /** True: its id was made here. */ isOurs: boolean }
  | { kind: 'update'; row: ChangedRow }
  | { kind: 'remove'; row: RemovedRow };

/** A person as it is after a write; null where it is gone, or nobody wants to know it. */
export type SetResult = PersonRow | null;

type Results = Map<SetWrite, SetResult>;
type Of<Kind extends SetWrite['kind']> = Extract<SetWrite, { kind: Kind }>;

/** Writes many people in the unit of work that calls it, by as few statements as can be. */
export class SetWriter {
  constructor(
    private readonly store: PeopleStore,
    private readonly statements: SetStatements,
    /** Whether it is asked what the people are like afterwards. */
    private readonly wantsRows: boolean,
  ) {}

  /**
   * In the order of the writes as far as they are about the same person.
   *
   * @returns what became of each; those that changed nothing are left out, and why is for others to find out
   * @throws as `PeopleStore.write`
   */
  async write(writes: readonly SetWrite[]): Promise<Results> {
    const results: Results = new Map();
    for (let left = writes; left.length > 0;) {
      const { round, rest } = firstOfEach(left);
      await this.writeRound(round, results);
      left = rest;
    }
    return results;
  }

  /** Writes of different people: what is inserted first, as that waits for nobody who waits for a row. */
  private async writeRound(round: readonly SetWrite[], results: Results): Promise<void> {
    const [created, updated, removed] = [of(round, 'create'), of(round, 'update'), of(round, 'remove')];
    if (created.length > 0) await this.create(created, results);
    if (updated.length > 0 && removed.length > 0) {
      const ids = [...updated, ...removed].map(({ row }) => row.id);
      await this.store.send(this.statements.lock(ids), { writes: true });
    }
    if (updated.length > 0) await this.update(updated, results);
    if (removed.length > 0) {
      const { rows } = await this.store.write<{ id: string }>(this.statements.remove(removed.map(rowOf)));
      const gone = new Set(rows.map(({ id }) => id));
      for (const write of removed) if (gone.has(write.row.id)) results.set(write, null);
    }
  }

  private async create(writes: Of<'create'>[], results: Results): Promise<void> {
    const stored = this.wantsRows ? await this.createRows(writes) : await this.createAndCount(writes);
    const isThere = writes.filter(({ row }) => stored.get(row.id) === undefined);
    for (const write of writes) {
      const row = stored.get(write.row.id);
      if (row !== undefined) results.set(write, row);
    }
    if (isThere.length === 0) return;
    // Who stores the same person again is told that it is there.
    const ids = isThere.map(({ row }) => row.id);
    const { rows } = await this.store.send<PersonRow>(this.statements.find(ids), {
      writes: false,
    });
    const found = rowsById(rows);
    for (const write of isThere) {
      const row = found.get(write.row.id);
      const isSame = row?.name === write.row.name && this.store.table.isSame(row.data, write.row.data);
      if (row && (isSame || write.isOurs)) results.set(write, row);
    }
  }

  private async createRows(writes: readonly Of<'create'>[]): Promise<Map<string, SetResult>> {
    const { rows } = await this.store.write<PersonRow>(this.statements.create(writes.map(rowOf)));
    const ids = new Set(writes.map(({ row }) => row.id));
    if (rows.some(({ id }) => !ids.has(id))) throw new PersonRefusedError();
    return rowsById(rows);
  }

  private async createAndCount(writes: readonly Of<'create'>[]): Promise<Map<string, SetResult>> {
    const { rows } = await this.store.write<{ stored: number; taken: string[] }>(
      this.statements.createAndCount(writes.map(rowOf)),
    );
    const { stored, taken } = rows[0]!;
    // A trigger has given one another id, under which nobody would look for it.
    if (stored + taken.length !== writes.length) throw new PersonRefusedError();
    const without = new Set(taken);
    return new Map(writes.filter(({ row }) => !without.has(row.id)).map(({ row }) => [row.id, null]));
  }

  private async update(writes: readonly Of<'update'>[], results: Results): Promise<void> {
    const { update, updateAndTell } = this.statements;
    const statement = (this.wantsRows ? update : updateAndTell)(writes.map(rowOf));
    const { rows } = await this.store.write<PersonRow>(statement);
    const changed = rowsById(rows);
    for (const write of writes) {
      const row = changed.get(write.row.id);
      if (row) results.set(write, this.wantsRows ? row : null);
    }
  }
}

/** The first write of each person, and the others. */
function firstOfEach(writes: readonly SetWrite[]): { round: SetWrite[]; rest: SetWrite[] } {
  const ids = new Set<string>();
  const [round, rest]: [SetWrite[], SetWrite[]] = [[], []];
  for (const write of writes) {
    (ids.has(write.row.id) ? rest : round).push(write);
    ids.add(write.row.id);
  }
  return { round, rest };
}

const of = <Kind extends SetWrite['kind']>(writes: readonly SetWrite[], kind: Kind) =>
  writes.filter((write): write is Of<Kind> => write.kind === kind);

const rowOf = <Row>({ row }: { row: Row }): Row => row;
