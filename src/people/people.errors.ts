import { failureOf, hasSqlState, type PostgresError } from '../database/database-failure.js';
import { faultOf, isUniqueness, refusalOf } from '../database/faults.js';
import { UNIQUE_VIOLATION } from '../database/postgres-errors.js';
import { ApplicationError, type FieldError, unchanged } from '../errors/application-error.js';
import { shownFields } from '../errors/shown.js';

/** No person has this id. HTTP 404. */
export class PersonNotFoundError extends ApplicationError {
  constructor(
    /** The id that was asked for. */
    readonly id: string,
  ) {
    super(`No person has the id ${id}.`, { type: 'person-not-found', status: 404 });
  }
}

/** A person with this id exists and is another one. HTTP 409. */
export class PersonConflictError extends ApplicationError {
  constructor(
    /** Of the person that is there; undefined where the table does not say. */
    readonly id: string | undefined,
    options?: ErrorOptions,
  ) {
    super(
      unchanged(
        id
          ? `A person with the id ${id} exists already and differs from the one given`
          : 'The person collides with one that exists already',
      ),
      { type: 'person-conflict', status: 409 },
      options,
    );
  }
}

/** The person is not the version named in `ifMatch`. Read it again and decide anew. HTTP 412. */
export class PersonChangedError extends ApplicationError {
  constructor(
    /** The id that was asked for. */
    readonly id: string,
  ) {
    super(`${unchanged(`The person ${id} is not the version that was asked for`)} Read it again.`, {
      type: 'person-changed',
      status: 412,
    });
  }
}

/** Rows of another table refer to the person. HTTP 409. */
export class PersonInUseError extends ApplicationError {
  constructor(
    /** Of the person. */
    readonly id: string,
    options?: ErrorOptions,
  ) {
    super(
      unchanged(`The person ${id} is in use elsewhere and cannot be deleted`),
      { type: 'person-in-use', status: 409 },
      options,
    );
  }
}

const COLUMNS: readonly string[] = ['id', 'name', 'data'];

/**
 * The table `people` refuses what it was given: its types, a constraint, a trigger, row security. Names the constraint or the
 * column, and no value. HTTP 400; 409 for what may exist only once.
 */
export class PersonRefusedError extends ApplicationError {
  /** @param cause what the server says; undefined where a trigger keeps the row out without a word */
  constructor(cause?: PostgresError) {
    const column = cause && columnOf(cause);
    super(
      unchanged(
        `The table of people refuses it: ${cause ? reasonOf(cause) : 'a trigger or a rule keeps it out'}`,
      ),
      {
        type: 'person-refused',
        status: cause && isUniqueness(cause) ? 409 : 400,
        ...(column &&
          COLUMNS.includes(column) && {
            fields: [{ pointer: `#/${column}`, detail: `is refused by the column ${column}` }],
          }),
      },
      { cause },
    );
  }
}

/** The server names no column for a text that is too long, and there is one column of text. */
const columnOf = ({ code, column }: PostgresError) => column ?? (code === '22001' ? 'name' : undefined);

function reasonOf(cause: PostgresError): string {
  const { code, constraint } = cause;
  const column = columnOf(cause);
  if (constraint || !column) {
    const reason = refusalOf(cause);
    return /^22(021|P05)$/.test(code) ? `${reason}, in its name or its data` : reason;
  }
  return `the column ${column} (${code})`;
}

/** The stored `data` of a person does not fit the module's `dataType`; `errors` names the fields. HTTP 500. */
export class StoredDataInvalidError extends ApplicationError {
  constructor(
    /** Of the person. */
    readonly id: string,
    /** The fields that do not fit. */
    readonly errors: readonly FieldError[],
    options?: ErrorOptions,
  ) {
    const texts = shownFields(errors)
      .map(({ pointer, detail }) => `${pointer} ${detail}`)
      .join('; ');
    super(
      `The stored data of the person ${id} does not fit what this service expects: ${texts}`,
      { type: 'stored-data-invalid', status: 500, fields: errors },
      options,
    );
  }
}

/** A conflict made a unit of work run again, but the people to import were a stream, read already. HTTP 503. */
export class ImportNotRepeatableError extends ApplicationError {
  constructor() {
    super(unchanged('The people to import can be read only once and were read already', 'send them again'), {
      type: 'import-not-repeatable',
      status: 503,
      retryable: true,
      retryAfterSeconds: 1,
    });
  }
}

/** What the table of people refuses, as an error that may be told; any other error as it is. */
export function toPersonError(error: unknown): unknown {
  const { postgres, isLost } = failureOf(error) ?? {};
  if (!postgres || isLost || faultOf(postgres) !== 'input') return error;
  // The server's texts are translated, but for the columns and values in them.
  const id = hasSqlState(error, UNIQUE_VIOLATION) && /\(id\)=\(([^()]+)\)/.exec(postgres.detail ?? '')?.[1];
  return id ? new PersonConflictError(id, { cause: error }) : new PersonRefusedError(postgres);
}
