import { type CanActivate, type ExecutionContext, Injectable, SetMetadata } from '@nestjs/common';
import type { FieldError } from '../../errors/application-error.js';
import { PROBLEMS_AT_MOST, shown } from '../../errors/shown.js';
import type { BodyRequest } from '../../json/body.decorator.js';
import { assertPersonId } from '../person.dto.js';
import { invalid } from '../../json/refusals.js';

const KNOWN_QUERY = Symbol('KNOWN_QUERY');

type AddressedRequest = BodyRequest & { params?: { id?: string } };

/** Names the query parameters that a handler takes; one without takes none. */
export const TakesQuery = (...names: string[]) => SetMetadata(KNOWN_QUERY, names);

/**
 * Refuses an address before a body is read for it: an id that is none; a query parameter that the handler does not take, as
 * bodies are refused with unknown fields; and percent-encoding or UTF-8 that is malformed, which parsers let through as text
 * that nobody meant. A parameter that stands twice reaches the handler as an array, which its validation refuses.
 */
@Injectable()
export class KnownAddressGuard implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    const { url, originalUrl = url, params } = context.switchToHttp().getRequest<AddressedRequest>();
    if (params?.id !== undefined) assertPersonId(params.id);
    const at = originalUrl.indexOf('?');
    if (at === -1) return true;
    const known = (Reflect.getMetadata(KNOWN_QUERY, context.getHandler()) as string[] | undefined) ?? [];
    const problems = problemsOf(originalUrl.slice(at + 1), new Set(known));
    if (problems.length > 0) throw invalid(problems);
    return true;
  }
}

function problemsOf(query: string, known: ReadonlySet<string>): FieldError[] {
  const problems: FieldError[] = [];
  for (const pair of query.split('&')) {
    if (pair === '') continue;
    const [encoded = ''] = pair.split('=', 1);
    const name = decode(encoded);
    // The name as it came where it has no other.
    const pointer = `#/${shown(name ?? encoded)}`;
    const add = (detail: string) => problems.push({ pointer, detail });
    if (name === undefined) add('must be percent-encoded UTF-8');
    else if (!known.has(name)) add('is not a known query parameter');
    else if (decode(pair.slice(encoded.length + 1)) === undefined) add('must be percent-encoded UTF-8');
    if (problems.length === PROBLEMS_AT_MOST) break;
  }
  return problems;
}

/** undefined: malformed. */
function decode(text: string): string | undefined {
  // Node hands each byte beyond ASCII over as a character of its own; parsers end a query at a fragment, which is none's to send.
  if (/[^!-~]|#/.test(text)) return undefined;
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return undefined;
  }
}

/** Whether the ids of many people are asked for; those of a stream would have to be kept to its end. */
export function idsOf(value: unknown, isStream: boolean): boolean {
  const refuse = (detail: string) => invalid([{ pointer: '#/ids', detail }]);
  if (value !== undefined && value !== 'true' && value !== 'false') throw refuse('must be true or false');
  if (value === 'true' && isStream) throw refuse('must be false for newline-delimited JSON');
  return value === 'true';
}
