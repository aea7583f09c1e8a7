import { mergeJson } from '../json/merge.js';
import { invalid } from '../json/refusals.js';
import { outgoingJson } from '../tracing/trace-context.js';
import type { CopyRow } from './importing/copy.js';
import {
  PersonChangedError,
  PersonConflictError,
  PersonNotFoundError,
  PersonRefusedError,
} from './people.errors.js';
import type { PeopleStore } from './people-store.js';
import { type Person, type PersonRow, versionOfRow, versionToRow } from './person.entity.js';
import type { PersonRows } from './person-rows.js';
import type { Change, SharedPeople } from './sharing/shared-people.js';
import { WriteDoubt } from './write-doubt.js';

/** A write that changes no row is repeated this often, in case that others were there in between, before the table is to blame. */
const LOOKS = 10;
/** But where the same row is found each time, the table is to blame sooner. */
const LOOKS_AT_ONE = 3;

/** Changes of one person queue up in this process; another process meets them as conflicts. */
const keyOf = (id: string) => `people:${id.toLowerCase()}`;

/** The versions that a change is for, as SQL has them; null: any. @throws InvalidInputError */
export function toVersions(ifMatch: string | readonly string[] | undefined): string[] | null {
  if (ifMatch === undefined) return null;
  const versions: unknown[] = [ifMatch].flat();
  if (versions.every((version) => typeof version === 'string')) return versions.map(versionToRow);
  throw invalid([{ pointer: '#/ifMatch', detail: 'must be a version, or an array of versions' }]);
}

/**
 * Stores a row, unless the same person is there.
 *
 * @param isOurs true: nobody else can know the id, as it was made here
 * @throws PersonConflictError another person has this id
 */
export async function insertPerson(
  people: SharedPeople,
  [id, name, data]: CopyRow,
  isOurs: boolean,
): Promise<{ row: PersonRow; created: boolean }> {
  const doubt = new WriteDoubt();
  for (let look = 1; look <= LOOKS; look++) {
    const row = await people.insert([id, name, data], isOurs, doubt);
    if (row) return { row, created: true };
    const existing = await doubt.ask((isProof) => people.find(id, isProof));
    if (!existing) continue;
    // What was stored under an id of ours is ours, whatever has become of it since.
    const isSame = existing.name === name && people.table.isSame(existing.data, data);
    if (isOurs || isSame) return { row: existing, created: isOurs };
    throw doubt.error ?? new PersonConflictError(id);
  }
  throw doubt.error ?? new PersonRefusedError();
}

/**
 * Changes or removes a row. Where the answer was lost, what is there then tells what became of it. It is not done again, as
 * others may have followed; with versions it can be, for it fits one row only, unless they are digests of a content, which may come again.
 *
 * @param change the values of its statement, the id first
 * @param recognise what was done, by the row that is found; undefined where that can't be told
 */
export async function changePerson(
  people: SharedPeople,
  { kind, values }: Pick<Change, 'kind' | 'values'>,
  versions: string[] | null,
  recognise: (found: PersonRow | undefined) => { row: PersonRow | undefined } | undefined,
): Promise<PersonRow | undefined> {
  const doubt = new WriteDoubt();
  const [id] = values as [string];
  const idempotent = versions !== null && people.table.hasRowVersions;
  let before: string | undefined;
  let unchanged = 0;
  for (let look = 1; look <= LOOKS; look++) {
    const row = await doubt.of(people.change({ kind, values, idempotent, doubt }, keyOf(id)));
    if (row) return row;
    const found = await doubt.ask((isProof) => people.find(id, isProof));
    if (doubt.error) {
      const recognised = recognise(found);
      if (!recognised) throw doubt.error;
      return recognised.row;
    }
    if (!found) throw new PersonNotFoundError(id);
    const version = versionOfRow(found);
    if (versions && !versions.includes(version)) throw new PersonChangedError(id);
    unchanged = version === before ? unchanged + 1 : 1;
    if (unchanged === LOOKS_AT_ONE) break;
    before = version;
  }
  throw new PersonRefusedError();
}

/** Merges `patch` (RFC 7396) into the `data` of a row, which is locked meanwhile. */
export function mergePerson<Data extends object>(
  store: PeopleStore,
  rows: PersonRows<Data>,
  {
    id,
    name,
    patch,
    versions,
  }: { id: string; name: string | null; patch: string | null; versions: string[] | null },
): Promise<Person<Data>> {
  return store.transactions.run({ conflictKey: keyOf(id) }, async (transaction) => {
    const stored = (await transaction.query<PersonRow>(store.statements.getForUpdate(id))).rows[0];
    // One that is created from here on is not to be changed by what was merged with nothing.
    if (!stored) throw new PersonNotFoundError(id);
    const json = rows.ofMerged(await mergeJson(stored.data ?? 'null', patch ?? 'null'));
    const update = store.statements.update([id, name, true, json, versions], outgoingJson());
    const merged = await store.write<PersonRow>(update);
    if (merged.rows[0]) return rows.toPerson(merged.rows[0]);
    throw versions && !versions.includes(versionOfRow(stored))
      ? new PersonChangedError(id)
      : new PersonRefusedError();
  });
}
