import type { IncomingMessage } from 'node:http';
import { BadRequestException, ForbiddenException, HttpException } from '@nestjs/common';
import type { FastifyInstance } from 'fastify';

/** Headers that two of would be read differently by whoever stands in front and by this service. */
const SINGLE = new Set([
  'host',
  'authorization',
  'content-type',
  'content-encoding',
  'idempotency-key',
  'origin',
]);
/** Names of this machine alone: whoever controls a name elsewhere can't make it one of these. */
const LOOPBACK_NAME = /^(localhost|.+\.localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/**
 * Which hosts a request may be for, by its `Host` and, from a page of a browser, its `Origin`.
 *
 * @param names beside those of the loopback; undefined: any
 */
export interface HostRules {
  names: readonly string[] | undefined;
}

/** Refuses what is HTTP but ambiguous, and what a page of somebody else makes a browser send. */
export function refuseAmbiguous(fastify: FastifyInstance, { names }: HostRules): void {
  const isKnown = (host: string) => {
    const name = host.replace(/:\d*$/, '').toLowerCase();
    return LOOPBACK_NAME.test(name) || names?.includes(name) === true;
  };
  fastify.addHook('onRequest', ({ raw }, _reply, done) => {
    const ambiguity = ambiguityOf(raw);
    if (ambiguity !== undefined) return done(new BadRequestException(ambiguity));
    const { host, origin, expect } = raw.headers;
    if (expect !== undefined && expect.toLowerCase() !== '100-continue')
      return done(new HttpException('The header Expect may ask for 100-continue alone.', 417));
    // A name of an attacker's may lead to this machine (DNS rebinding), and the browser then takes the answer for theirs.
    if (names && host !== undefined && !isKnown(host))
      return done(new ForbiddenException(foreign('host', 'Host')));
    if (names && origin !== undefined && !isKnown(origin.replace(/^https?:\/\//i, '')))
      return done(new ForbiddenException(foreign('page', 'Origin')));
    done();
  });
}

const foreign = (what: string, header: string) =>
  `This service is not for that ${what} (${header}). Its names are those of the loopback, and HTTP_ALLOWED_HOSTS.`;

/** What others could read otherwise, so that a request ends elsewhere for them, or is for another host. */
function ambiguityOf({ headers, httpVersion, rawHeaders }: IncomingMessage): string | undefined {
  const encoding = headers['transfer-encoding'];
  if (httpVersion !== '1.1' && httpVersion !== '1.0') return `HTTP/1.1 is needed, not HTTP/${httpVersion}.`;
  if (headers.host === undefined && httpVersion === '1.1') return 'The header host is missing.';
  if (encoding !== undefined && (encoding.toLowerCase() !== 'chunked' || httpVersion === '1.0'))
    return 'The header transfer-encoding must be chunked, with HTTP/1.1.';
  const twice = doubleOf(rawHeaders);
  return twice && `The header ${twice} must stand once.`;
}

function doubleOf(rawHeaders: readonly string[]): string | undefined {
  const seen = new Set<string>();
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase();
    if (!SINGLE.has(name)) continue;
    if (seen.has(name)) return name;
    seen.add(name);
  }
  return undefined;
}
