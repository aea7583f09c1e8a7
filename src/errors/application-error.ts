/** One field that was refused: where it is (JSON Pointer, RFC 6901, as a URI fragment) and what was expected. */
export interface FieldError {
  pointer: string;
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
  /** The fields it is about, shown to the caller. */
  fields?: readonly FieldError[];
}

/**
 * Base of every error this package raises on purpose. Its message is meant for the caller (it says what happened and
 * what to do, and never contains SQL); the technical reason is in `cause` and goes to the log only.
 */
export abstract class ApplicationError extends Error {
  readonly type: string;
  readonly status: number;
  readonly retryable: boolean;
  readonly retryAfterSeconds: number | undefined;
  readonly fields: readonly FieldError[] | undefined;

  constructor(message: string, description: ErrorDescription, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.type = description.type;
    this.status = description.status;
    this.retryable = description.retryable ?? false;
    this.retryAfterSeconds = description.retryAfterSeconds;
    this.fields = description.fields;
  }
}

/** The input was refused and nothing was changed; `errors` names each field and what was expected. HTTP 400. */
export class InvalidInputError extends ApplicationError {
  constructor(
    message: string,
    readonly errors?: readonly FieldError[],
    options?: ErrorOptions,
  ) {
    super(message, { type: 'invalid-input', status: 400, ...(errors && { fields: errors }) }, options);
  }
}
