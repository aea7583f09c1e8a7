/** Names who sent a request, the same each time; undefined where nobody is told from anybody. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- requests are those of the host's platform and guards
export type CallerOf = (request: any) => string | undefined;

/** What a guard may call its user by: a claim of a token, or as Passport's strategies do. */
const NAMES = ['sub', 'id', 'userId'] as const;

/**
 * Who sent a request, by what a guard has left in `request.user`: its `sub` (with `iss`), `id` or `userId`.
 *
 * @throws Error there is a user, and nothing names it
 */
export function callerOfUser({ user }: { user?: unknown }): string | undefined {
  if (user === undefined || user === null) return undefined;
  const caller = callerByClaims(user, NAMES);
  if (caller === undefined)
    throw new Error(
      'PeopleModule: who sent a request with an Idempotency-Key can not be told by request.user (sub, id or userId). Set the option caller of PeopleModule.forRoot.',
    );
  return caller;
}

/** The issuer and the first of `names` that the claims have, so that no two callers have one text; undefined for none. */
export function callerByClaims(claims: object, names: readonly string[]): string | undefined {
  const values = claims as Record<string, unknown>;
  const name = names.find((one) => isName(values[one]));
  if (name === undefined) return undefined;
  const { iss } = values;
  return JSON.stringify([isName(iss) ? String(iss) : null, name, String(values[name])]);
}

const isName = (value: unknown): value is string | number | bigint =>
  (typeof value === 'string' && value !== '') || typeof value === 'number' || typeof value === 'bigint';
