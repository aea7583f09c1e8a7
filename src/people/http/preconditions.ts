import { InvalidInputError } from '../../errors/application-error.js';
import { digestOf, type MessageIdentity, storable } from '../../messaging/message-identity.js';
import type { IfMatch } from '../people.service.js';
import type { Person } from '../person.entity.js';

/** The strong ETag of a person (RFC 9110, 8.8.3). */
export const etagOf = (person: Person) => `"${person.version}"`;

/** The opaque tags of a list of ETags; weak ones keep their `W/`. */
const tagsOf = (header: string) => header.split(',').map((tag) => tag.trim());

/** What an `If-Match` header asks of the service. Weak tags never match (RFC 9110, 13.1.1); `*` asks for any version. */
export function toIfMatch(header: string | undefined): IfMatch {
  if (header === undefined || header.trim() === '*') return {};
  return { ifMatch: tagsOf(header).map((tag) => /^"(.*)"$/.exec(tag)?.[1] ?? '') };
}

/** True when an `If-None-Match` header names this version (weak comparison, RFC 9110, 13.1.2) or any. */
export function matchesAny(header: string, person: Person): boolean {
  return header.trim() === '*' || tagsOf(header).some((tag) => tag.replace(/^W\//, '') === etagOf(person));
}

const KEY_CHARACTERS = 255;

/**
 * Names a request with this `Idempotency-Key` of this caller: the same key with another body is a mistake of the caller, and
 * the same key of another caller is another key.
 *
 * @param caller undefined where callers are not told apart
 * @throws InvalidInputError an empty or an overlong key
 */
export function identityOfRequest(
  route: string,
  key: string,
  body: Uint8Array,
  caller: string | undefined,
): MessageIdentity {
  if (key === '' || key.length > KEY_CHARACTERS) {
    throw new InvalidInputError(`The header Idempotency-Key must have 1 to ${KEY_CHARACTERS} characters.`);
  }
  // A hash, as the caller's name may be long, and is nobody's business who reads the table.
  const consumer = caller === undefined ? `http ${route}` : `http ${route} ${digestOf(caller)}`;
  return { consumer, messageId: storable(key), digest: digestOf(body) };
}
