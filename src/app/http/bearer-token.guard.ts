import {
  type CanActivate,
  type ExecutionContext,
  ForbiddenException,
  Injectable,
  type Type,
} from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import type { JWTPayload } from 'jose';
import { ConsoleController } from '../../operations/console/console.controller.js';
import { scopeNeeded } from '../../operations/operator-access.js';
import { HealthController } from '../../operations/health/controller.js';
import { MetricsController } from '../../operations/metrics.controller.js';
import { callerByClaims } from '../../people/http/caller.js';
import { BearerTokenException, scopesOf, tokenVerifier, type TokenVerifier } from './bearer-tokens.js';
import type { AuthSettings } from '../settings.js';

/** Asked by machines that have no token; `operations-access` says who is answered what. */
const PUBLIC = new Set<Type>([HealthController, MetricsController, ConsoleController]);
const READING = new Set(['GET', 'HEAD']);

interface HttpRequest {
  method: string;
  headers: { authorization?: string };
  /** The claims of the token that let the request in. */
  user?: JWTPayload;
}

/** Claims that name who asks; a token for a program has no user (RFC 9068, OpenID Connect). */
const CALLER_CLAIMS = ['sub', 'client_id', 'azp'] as const;

/** Who sent a request that `BearerTokenGuard` has let in; those whose token names nobody are one. */
export const callerOfToken = ({ user }: HttpRequest): string | undefined =>
  user && (callerByClaims(user, CALLER_CLAIMS) ?? JSON.stringify([user.iss ?? null]));

/** Who sent a request that `BearerTokenGuard` has let in, for people to read; without tokens anybody. */
export const operatorByToken = ({ user }: HttpRequest): string => {
  if (user === undefined) return 'anybody';
  const { iss } = user;
  const name = CALLER_CLAIMS.map((claim) => user[claim]).find(
    (value): value is string => typeof value === 'string' && value !== '',
  );
  const who = typeof name === 'string' ? name : 'a token without a name';
  return iss === undefined ? who : `${who} (${iss})`;
};

/** Whether who sent a request that `BearerTokenGuard` has let in may read people too. */
export const mayReadByToken = ({ user }: HttpRequest): boolean =>
  user === undefined || scopesOf(user).includes('people:read');

/**
 * Lets a request in whose bearer token (RFC 6750) is valid and has the scope of its method: `people:read` for GET and
 * HEAD, `people:write` for the others, or the one that the handler names. Its claims are `request.user` from then on. With `AUTH=none` everybody comes in.
 */
@Injectable()
export class BearerTokenGuard implements CanActivate {
  private readonly verify: TokenVerifier | undefined;

  constructor(
    auth: AuthSettings,
    private readonly adapterHost: HttpAdapterHost,
  ) {
    this.verify = tokenVerifier(auth);
  }

  async canActivate(context: ExecutionContext): Promise<boolean> {
    if (!this.verify || PUBLIC.has(context.getClass())) return true;
    const http = context.switchToHttp();
    const request = http.getRequest<HttpRequest>();
    const challenge = (text: string) => {
      this.adapterHost.httpAdapter.setHeader(http.getResponse(), 'WWW-Authenticate', text);
    };
    const claims = await this.verify(request.headers.authorization).catch((error: unknown) => {
      if (error instanceof BearerTokenException) challenge(error.challenge);
      throw error;
    });
    const needed = scopeNeeded(context) ?? (READING.has(request.method) ? 'people:read' : 'people:write');
    if (scopesOf(claims).includes(needed)) {
      request.user = claims;
      return true;
    }
    challenge(`Bearer error="insufficient_scope", scope="${needed}"`);
    throw new ForbiddenException(`The bearer token lacks the scope ${needed}.`);
  }
}
