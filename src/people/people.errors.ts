import { ApplicationError, type FieldError } from '../errors/application-error.js';

/** No person has this id. HTTP 404. */
export class PersonNotFoundError extends ApplicationError {
  constructor(readonly id: string) {
    super(`No person has the id ${id}.`, { type: 'person-not-found', status: 404 });
  }
}

/** A person with this id exists and is another one; nothing was changed. HTTP 409. */
export class PersonConflictError extends ApplicationError {
  constructor(
    readonly id: string | undefined,
    options?: ErrorOptions,
  ) {
    super(
      id
        ? `A person with the id ${id} exists already and differs from the one given; nothing was changed.`
        : 'The person collides with one that exists already; nothing was changed.',
      { type: 'person-conflict', status: 409 },
      options,
    );
  }
}

/** The person is no longer the version named in `ifMatch`; nothing was changed. Read it again and decide anew. HTTP 412. */
export class PersonChangedError extends ApplicationError {
  constructor(readonly id: string) {
    super(`The person ${id} is not the version that was asked for; nothing was changed. Read it again.`, {
      type: 'person-changed',
      status: 412,
    });
  }
}

/** Rows of another table refer to the person; nothing was changed. HTTP 409. */
export class PersonInUseError extends ApplicationError {
  constructor(
    readonly id: string,
    options?: ErrorOptions,
  ) {
    super(
      `The person ${id} is in use elsewhere and cannot be deleted; nothing was changed.`,
      { type: 'person-in-use', status: 409 },
      options,
    );
  }
}

/** The stored `data` of a person does not fit the module's `dataType`; `errors` names the fields. HTTP 500. */
export class StoredDataInvalidError extends ApplicationError {
  constructor(
    readonly id: string,
    readonly errors: readonly FieldError[],
    options?: ErrorOptions,
  ) {
    const texts = errors.map(({ pointer, detail }) => `${pointer} ${detail}`).join('; ');
    super(
      `The stored data of the person ${id} does not fit what this service expects: ${texts}`,
      { type: 'stored-data-invalid', status: 500, fields: errors },
      options,
    );
  }
}

/** A conflict made a unit of work run again, but the people to import were a stream, read already. HTTP 503; nothing was changed. */
export class ImportNotRepeatableError extends ApplicationError {
  constructor() {
    super(
      'The people to import can be read only once and were read already; nothing was changed, send them again.',
      {
        type: 'import-not-repeatable',
        status: 503,
        retryable: true,
        retryAfterSeconds: 1,
      },
    );
  }
}
