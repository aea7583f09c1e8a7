import { readJsonObject } from '../../json/input.js';
import { WorkSlices } from '../../json/work-slices.js';
import {
  type BatchHandler,
  type BatchMessage,
  HandledApartError,
} from '../../messaging/consuming/batch-handlers.js';
import { headerText } from '../../messaging/message-identity.js';
import type { PeopleOptions } from '../people.options.js';
import type { PeopleService } from '../people.service.js';
import { assertPersonId, INPUT_MEMBERS, UpdatePersonDto, validateInput } from '../person.dto.js';
import { personJson } from '../person.entity.js';
import { toVersions } from '../single-writes.js';
import { setStatements, type SetStatements } from './set-statements.js';
import { type SetWrite, SetWriter } from './set-writes.js';

/** The header of a message of `people.commands` that says what is to be done. */
export const OPERATION = 'people-operation';

/** Topics whose messages are of one kind. */
const KINDS = new Map<string, SetWrite['kind']>([
  ['people.create', 'create'],
  ['people.update', 'update'],
  ['people.delete', 'remove'],
]);
/** The same by the header of `people.commands`. */
const COMMANDS = new Map<string | undefined, SetWrite['kind']>([
  ['create', 'create'],
  ['update', 'update'],
  ['delete', 'remove'],
]);

/** Topics whose messages `peopleBatchHandler` handles. */
export const BATCH_TOPICS = [...KINDS.keys(), 'people.commands'];

/**
 * Creates, changes and removes the people of many messages by statements that they share. Whatever is not plainly done so (what is refused, or
 * finds no such person, and operations of `people.commands` that are others) is handled apart, by the controller.
 *
 * @param outbox the table of the outbox, where each change writes its event
 */
export function peopleBatchHandler<Data extends object>(
  people: PeopleService<Data>,
  options: PeopleOptions<Data>,
  outbox: string | undefined,
): BatchHandler {
  const { store, rows } = people;
  let statements: Record<'waiting' | 'skipping', SetStatements> | undefined;
  return async (messages, { skipsLocked }) => {
    if (!store.table.isKnown) await store.table.learn();
    // A view, or another engine, may not take what these statements ask for.
    if (!store.table.hasRowVersions) return undefined;
    const slices = new WorkSlices();
    const writes: SetWrite[] = [];
    const refused = new Set<number>();
    for (const [place, message] of messages.entries()) {
      const write = writeOrNone(people, options, message);
      if (write) writes.push(write);
      else refused.add(place);
      if (slices.isOver(message.record.value?.length ?? 0)) await slices.giveWay();
    }
    if (refused.size > 0) throw new HandledApartError(refused);
    const wantsRows = options.dataType !== undefined || messages.some(({ isAnswered }) => isAnswered);
    // The table's schema is known by now.
    statements ??= setStatements(store.table.name, outbox);
    const writer = new SetWriter(store, statements[skipsLocked ? 'skipping' : 'waiting'], wantsRows);
    return async () => {
      const results = await writer.write(writes);
      if (results.size < writes.length)
        throw new HandledApartError(placesWhere(writes, (write) => !results.has(write)));
      return messages.map(({ isAnswered }, place) => {
        const row = results.get(writes[place]!);
        // With a dataType it is checked whether what is stored fits.
        const person = row && wantsRows ? rows.toPerson(row) : undefined;
        return person && isAnswered ? personJson(person) : null;
      });
    };
  };
}

/** undefined: it is refused, or no write of one person; the controller tells what it is. */
function writeOrNone<Data extends object>(
  people: PeopleService<Data>,
  options: PeopleOptions<Data>,
  message: BatchMessage,
): SetWrite | undefined {
  try {
    return writeOf(people, options, message);
  } catch {
    return undefined;
  }
}

/** @throws InvalidInputError */
function writeOf<Data extends object>(
  { rows }: PeopleService<Data>,
  { tombstones }: PeopleOptions<Data>,
  { record: { topic, key, value, headers } }: BatchMessage,
): SetWrite | undefined {
  const isCommand = !KINDS.has(topic);
  if (value === null) {
    if (!isCommand || tombstones !== 'delete') return undefined;
    return removal(key?.toString(), null);
  }
  const kind = isCommand ? COMMANDS.get(headerText(headers, OPERATION)) : KINDS.get(topic);
  if (!kind) return undefined;
  const input = readJsonObject(value, 'the message', INPUT_MEMBERS);
  if (kind === 'create') {
    const [id, name, data] = rows.toRow(input as never, '#');
    return { kind, row: { id, name, data }, isOurs: input.id === undefined };
  }
  const { id, ifMatch, ...changes } = input;
  const versions = toVersions(ifMatch as string | undefined);
  if (kind === 'remove') return Object.keys(changes).length > 0 ? undefined : removal(id, versions);
  assertPersonId(id);
  const { name = null, data } = validateInput(UpdatePersonDto, changes) as {
    name?: string | null;
    data?: unknown;
  };
  rows.assertName(name ?? '');
  const setsData = data !== undefined;
  return {
    kind,
    row: { id: id.toLowerCase(), name, setsData, data: setsData ? rows.toJson(data) : null, versions },
  };
}

function removal(id: unknown, versions: string[] | null): SetWrite {
  assertPersonId(id);
  return { kind: 'remove', row: { id: id.toLowerCase(), versions } };
}

function placesWhere<Item>(items: readonly Item[], holds: (item: Item) => boolean): Set<number> {
  return new Set(items.flatMap((item, place) => (holds(item) ? [place] : [])));
}
