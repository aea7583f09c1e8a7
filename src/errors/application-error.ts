import { PROBLEMS_AT_MOST, shownFields } from './shown.js';

/** One field that was refused: where it is (JSON Pointer, RFC 6901, as a URI fragment) and what was expected. */
export interface FieldError {
  /** A JSON Pointer as a URI fragment: `#/data/name`. */
  pointer: string;
  /** What was expected. */
  detail: string;
}

/** What an `ApplicationError` says about itself to every door. */
export interface ErrorDescription {
  /** Stable name in kebab case; the last part of the problem's `type`, and in upper case the message reply's `code`. */
  type: string;
  /** The HTTP status that tells the same. */
  status: number;
  /** True when the same request may succeed later and sending it again is safe. */
  retryable?: boolean;
  /** Seconds after which to try again, sent as `Retry-After`. */
  retryAfterSeconds?: number;
  /** The fields it is about, shown to the caller: the first 20, and 200 characters of each text. */
  fields?: readonly FieldError[];
}

/**
 * A message that promises the caller that the database is as it was, so that doing it again can't do it twice. The one place
 * that says so: for errors that are raised only where it is proven, which is before anything was sent, after the server
 * has refused or rolled back what was, or where it has told that a lost COMMIT was not done.
 *
 * @param what what happened, as a sentence without its end
 * @param advice what to do, as the rest of that sentence
 */
export const unchanged = (what: string, advice = ''): string =>
  `${what}; nothing was changed${advice && `, ${advice}`}.`;

/**
 * Base of every error this package raises on purpose. Its message is meant for the caller (it says what happened and
 * what to do, and never contains SQL); the technical reason is in `cause` and goes to the log only.
 */
export abstract class ApplicationError extends Error {
  /** Stable name in kebab case: the last part of the problem's `type`, in upper case the `code` of a reply. */
  readonly type: string;
  /** The HTTP status that tells the same. */
  readonly status: number;
  /** True when the same request may succeed later and sending it again is safe. */
  readonly retryable: boolean;
  /** Seconds after which to try again (`Retry-After`); undefined where that is not known. */
  readonly retryAfterSeconds: number | undefined;
  /** The fields it is about: the first 20, with 200 characters of each text. */
  readonly fields: readonly FieldError[] | undefined;

  constructor(message: string, description: ErrorDescription, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.type = description.type;
    this.status = description.status;
    this.retryable = description.retryable ?? false;
    this.retryAfterSeconds = description.retryAfterSeconds;
    this.fields = description.fields && shownFields(description.fields);
  }

  /** With `expose` what Express, Fastify and Nest's own filter know an error of HTTP by. */
  get statusCode(): number {
    return this.status;
  }

  /** Its message is meant for the caller. */
  get expose(): boolean {
    return true;
  }
}

/**
 * The input was refused, without effect; `errors` names each field and what was expected, the first 20 of them. HTTP 400.
 */
export class InvalidInputError extends ApplicationError {
  /** The fields that were refused; as `fields`. */
  readonly errors: readonly FieldError[] | undefined;
  /** How many fields were refused beside those of `errors`. */
  readonly more: number;

  /**
   * @param message what was refused, for the caller
   * @param errors the fields
   * @param options `cause`, and what else is known
   * @param options.more fields that were refused beside those of `errors`, as far as they were counted
   */
  constructor(
    message: string,
    errors?: readonly FieldError[],
    { more = 0, ...options }: ErrorOptions & { more?: number } = {},
  ) {
    super(message, { type: 'invalid-input', status: 400, ...(errors && { fields: errors }) }, options);
    this.errors = this.fields;
    this.more = more + Math.max(0, (errors?.length ?? 0) - PROBLEMS_AT_MOST);
  }
}
