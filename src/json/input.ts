import { type FieldError, InvalidInputError } from '../errors/application-error.js';
import { JsonError } from './scanner.js';
import { JsonText, type Members, parseString, readMembers } from './text.js';
import { escapePointer, invalid } from './refusals.js';

/** The members that an object may have. What others hold is not looked at: they will be refused. */
export interface KnownMembers {
  parsed: ReadonlySet<string>;
  /** Those that stay the text they came as, so that no number in them can change. */
  asText: ReadonlySet<string>;
}

/** The members of a JSON object, as `KnownMembers` has them. */
export type JsonInput = Record<string, unknown>;

/**
 * The JSON object in `bytes`, still to be validated.
 *
 * @throws InvalidInputError no UTF-8, no JSON, no object, a member twice, or nested too deep
 */
export function readJsonObject(bytes: Uint8Array, what: string, known: KnownMembers): JsonInput {
  return toInput(decodeJson(bytes, what), '#', what, known);
}

/** Longer than any member that is neither a text nor kept as one: what it holds is not looked at. */
const LONG_MEMBER = 10_000;

/** As `readJsonObject`, of a text that stands at `pointer`. */
export function toInput(json: string, pointer: string, what: string, known: KnownMembers): JsonInput {
  const read = checked(() => readMembers(json), pointer, what);
  if (!read) throw refuseJson(`${what} must be a JSON object.`, pointer, 'must be a JSON object');
  if (read.more > 0) throw tooManyMembers(read, pointer, known);
  const input: JsonInput = {};
  const parts = isMostlyOther(json, read.members) ? copied(read.members) : read.members;
  for (const [key, member] of parts) {
    const value = valueOf(key, member, known);
    // Assigning would make it the prototype.
    if (key === '__proto__') Object.defineProperty(input, key, { value, ...OWN });
    else input[key] = value;
  }
  return input;
}

/** So much of a text is kept for its parts, however short they are. */
const BESIDE_PARTS = 256;

/** A part of a text keeps all of it in memory, and what is kept of people is counted by their parts. */
function isMostlyOther(json: string, members: ReadonlyMap<string, JsonText>): boolean {
  if (json.length <= BESIDE_PARTS) return false;
  let parts = 0;
  for (const { text } of members.values()) parts += text.length;
  return json.length > 2 * parts + BESIDE_PARTS;
}

const copied = (members: ReadonlyMap<string, JsonText>) =>
  new Map([...members].map(([key, { text }]) => [key, JsonText.ofChecked(Buffer.from(text).toString())]));

const OWN = { enumerable: true, configurable: true, writable: true };

function valueOf(key: string, member: JsonText, known: KnownMembers): unknown {
  if (!known.parsed.has(key)) return member;
  const isText = member.text.startsWith('"');
  // It will be refused for what it is, which takes no parsing.
  if (!isText && member.text.length > LONG_MEMBER) return member;
  return isText ? parseString(member.text) : (JSON.parse(member.text) as unknown);
}

function tooManyMembers({ members, more }: Members, pointer: string, known: KnownMembers): InvalidInputError {
  const unknown = [...members.keys()].filter((key) => !known.parsed.has(key) && !known.asText.has(key));
  const named = unknown.slice(0, 20);
  const detail = 'is not a known field';
  return invalid(
    named.map((key) => ({ pointer: `${pointer}/${escapePointer(key)}`, detail })),
    { more: unknown.length - named.length + more },
  );
}

// A mark at the beginning is one within an array as well: only what begins a body may be skipped.
const utf8 = new TextDecoder('utf-8', { fatal: true });
const utf8Within = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** @param isWhole false for bytes out of the middle of a text. @throws InvalidInputError no UTF-8 */
export function decodeJson(bytes: Uint8Array, what: string, isWhole = true): string {
  try {
    return (isWhole ? utf8 : utf8Within).decode(bytes);
  } catch (cause) {
    throw refuseJson(`${what} is not valid UTF-8.`, '#', '', { cause });
  }
}

/** What `read` gives. @throws InvalidInputError in place of a JsonError */
export function checked<T>(read: () => T, pointer: string, what: string): T {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof JsonError)) throw cause;
    throw refuseJson(`${what}: ${cause.message}.`, pointer, cause.message, { cause });
  }
}

/** A refusal of a text as a whole, which names no field, or of what stands at `pointer`. */
export function refuseJson(
  message: string,
  pointer: string,
  detail: string,
  options?: ErrorOptions,
): InvalidInputError {
  const errors: FieldError[] | undefined = pointer === '#' ? undefined : [{ pointer, detail }];
  return new InvalidInputError(message.charAt(0).toUpperCase() + message.slice(1), errors, options);
}
