import { Inject, type Type } from '@nestjs/common';
import type { CallerOf } from './http/caller.js';
import type { JsonObject } from '../json/lossless.js';
import type { RulesFor } from '../transactions/setup/known-options.js';

/** The DataSource PeopleModule works on: the application's default one, or the one named in `forRoot`. */
export const PEOPLE_DATA_SOURCE = Symbol.for('nestjs-people:PEOPLE_DATA_SOURCE');
export const PEOPLE_OPTIONS = Symbol.for('nestjs-people:PEOPLE_OPTIONS');

/** What the people of a page may take where nothing else is said. */
export const DEFAULT_PAGE_BYTES = 4 * 1024 * 1024;

/** What a page may be as a reply: brokers take records of 1 MiB, with all that belongs to them, where nothing else is said. */
export const DEFAULT_REPLY_BYTES = 900_000;

/** Injects the DataSource that PeopleModule works on. */
export const InjectPeopleDataSource = (): ParameterDecorator => Inject(PEOPLE_DATA_SOURCE);

/** What may come from an async factory. */
export interface PeopleOptions<Data extends object = JsonObject> {
  /**
   * A class-validator class for `data`: every door validates against it and `PeopleService<Data>` returns its instances.
   * Fields it does not name are refused. Left out, `data` is any JSON object.
   */
  dataType?: Type<Data>;
  /**
   * True to publish `person.created`, `person.updated` and `person.deleted` to `people.events`, whichever door was used.
   * Something has to relay them: `KafkaTransport` with a `store`, or Debezium on `message_outbox`. Default false.
   */
  events?: boolean;
  /**
   * Bytes that bodies and answers of `/people` under way may take together, beyond 16 KiB of each; past it requests wait for
   * `memoryWaitMs` and are answered 503. Default 64 MiB.
   */
  memoryBudgetBytes?: number;
  /** How long a body waits for memory, in ms. Default 5000. */
  memoryWaitMs?: number;
  /**
   * Bytes of names and data that a page of people has at most, though always one person: the rest is on the next. Streams hold
   * 1 MiB at most, replies of messages `replyBytes`. Default 4 MiB.
   */
  pageBytes?: number;
  /**
   * Bytes of JSON that a page of people has at most as the reply of `people.find-by-name`, though always one person. Not more than
   * the topics of replies take. Default 900,000, which fits the brokers' default.
   */
  replyBytes?: number;
  /**
   * How many imports may hold a connection at once; the others wait as long as for a connection, then 503. Default half of the pool,
   * at least one, and never all of a pool that has several.
   */
  importPlaces?: number;
  /** How long an import over HTTP may bring nothing, in ms, before it is answered 408. Default 10,000. */
  importIdleMs?: number;
  /**
   * How long an import may be waited for until 256 KiB of it are there, in ms, while other imports wait for its place, or half of the
   * memory is taken; 408 then. Default 60,000.
   */
  importPieceMs?: number;
  /** What one JSON body may be long, in bytes, where `PeopleModule` reads it and not a parser of the application. Default 1 MiB. */
  bodyLimitBytes?: number;
  /** The same of the array of `POST /people/bulk`. Default 16 MiB. */
  bulkBodyLimitBytes?: number;
  /** What a body has to bring a second, in bytes, or it is answered 408; 0 takes any. Default 5. */
  minBodyBytesPerSecond?: number;
  /** How far a body may lag behind that, in ms. Default 10,000. */
  bodyGraceMs?: number;
  /** What a message of `people.commands` without a value means: `delete` the person that is its key. Default: it is refused. */
  tombstones?: 'refuse' | 'delete';
  /**
   * Names who sent a request, the same each time: an `Idempotency-Key` belongs to its caller. Default: what a guard has left in
   * `request.user` (`sub` with `iss`, `id` or `userId`); without a user all callers are one.
   */
  caller?: CallerOf;
  /** What a person's `data` may have at most, in bytes of JSON, by whichever door; also once it is merged. Default 1 MiB. */
  maxDataBytes?: number;
  /** What a person's name may have at most, in bytes of UTF-8. Default 1 MiB. */
  maxNameBytes?: number;
  /**
   * Whether who sent a request may read people. Who may only write is answered a change by its ETag alone (204), as the rest
   * of the person is not for them. Default: everybody may.
   */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- requests are those of the host's platform and guards
  mayRead?: (request: any) => boolean;
}

/** What they may be. */
export const peopleOptionRules: RulesFor<PeopleOptions> = {
  dataType: 'a class',
  events: 'a boolean',
  memoryBudgetBytes: 'a whole number',
  memoryWaitMs: 'a whole number',
  pageBytes: 'a whole number',
  replyBytes: 'a whole number',
  importPlaces: 'a whole number',
  importIdleMs: 'a whole number',
  importPieceMs: 'a whole number',
  bodyLimitBytes: 'a whole number',
  bulkBodyLimitBytes: 'a whole number',
  minBodyBytesPerSecond: 'a whole number',
  bodyGraceMs: 'a whole number',
  tombstones: ['refuse', 'delete'],
  caller: 'a function',
  maxDataBytes: 'a whole number',
  maxNameBytes: 'a whole number',
  mayRead: 'a function',
};
