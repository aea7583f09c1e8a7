import {
  type CanActivate,
  type ExecutionContext,
  ForbiddenException,
  Injectable,
  type Type,
  UnauthorizedException,
} from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify, type JWTVerifyGetKey } from 'jose';
import { ApplicationError, unchanged } from '../errors/application-error.js';
import { HealthController } from '../operations/health.controller.js';
import { MetricsController } from '../operations/metrics.controller.js';
import { callerByClaims } from '../people/http-caller.js';
import type { AuthSettings } from './environment.js';

/** Asked by machines that have no token. */
const PUBLIC = new Set<Type>([HealthController, MetricsController]);
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

/** The issuer's keys can't be had, so no token can be judged. HTTP 503. */
export class TokenKeysUnavailableError extends ApplicationError {
  constructor(cause: unknown) {
    super(
      unchanged('The keys to check bearer tokens with cannot be had', 'try again'),
      { type: 'token-keys-unavailable', status: 503, retryable: true, retryAfterSeconds: 1 },
      { cause },
    );
  }
}

/**
 * Lets a request in whose bearer token (RFC 6750) is valid and has the scope of its method: `people:read` for GET and
 * HEAD, `people:write` for the others. Its claims are `request.user` from then on. With `AUTH=none` everybody comes in.
 */
@Injectable()
export class BearerTokenGuard implements CanActivate {
  private readonly verify: ((token: string) => Promise<JWTPayload>) | undefined;

  constructor(
    auth: AuthSettings,
    private readonly adapterHost: HttpAdapterHost,
  ) {
    this.verify = auth.method === 'jwt' ? verifierOf(auth) : undefined;
  }

  async canActivate(context: ExecutionContext): Promise<boolean> {
    if (!this.verify || PUBLIC.has(context.getClass())) return true;
    const http = context.switchToHttp();
    const request = http.getRequest<HttpRequest>();
    const { method, headers } = request;
    const challenge = (text: string) => {
      this.adapterHost.httpAdapter.setHeader(http.getResponse(), 'WWW-Authenticate', `Bearer ${text}`.trim());
    };
    const token = /^Bearer +(\S+)$/i.exec(headers.authorization ?? '')?.[1];
    if (!token) {
      challenge('');
      throw new UnauthorizedException('A bearer token is needed: Authorization: Bearer <token>.');
    }
    const claims = await this.verify(token).catch((error: unknown) => {
      if (isKeysUnavailable(error)) throw new TokenKeysUnavailableError(error);
      if (!(error instanceof errors.JOSEError)) throw error;
      challenge('error="invalid_token"');
      throw new UnauthorizedException(`The bearer token is not valid: ${error.message}.`, { cause: error });
    });
    const needed = READING.has(method) ? 'people:read' : 'people:write';
    if (scopesOf(claims).includes(needed)) {
      request.user = claims;
      return true;
    }
    challenge(`error="insufficient_scope", scope="${needed}"`);
    throw new ForbiddenException(`The bearer token lacks the scope ${needed}.`);
  }
}

function verifierOf({ jwksUrl, secret, issuer, audience }: Extract<AuthSettings, { method: 'jwt' }>) {
  const options = { ...(issuer && { issuer }), ...(audience && { audience }), requiredClaims: ['exp'] };
  const keys: JWTVerifyGetKey | undefined = jwksUrl ? createRemoteJWKSet(new URL(jwksUrl)) : undefined;
  const key = new TextEncoder().encode(secret ?? '');
  return async (token: string): Promise<JWTPayload> => {
    // A shared secret takes HMAC alone, and keys of a JWKS never do, so neither can be passed off as the other.
    const { payload } = keys
      ? await jwtVerify(token, keys, {
          ...options,
          algorithms: ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'],
        })
      : await jwtVerify(token, key, { ...options, algorithms: ['HS256'] });
    return payload;
  };
}

/** True when the failure is the issuer's, so that the token may well be good: no answer, or one that holds no keys. */
function isKeysUnavailable(error: unknown): boolean {
  if (error instanceof errors.JWKSTimeout || error instanceof errors.JWKSInvalid) return true;
  // What fetch throws, and what jose makes of an answer that is none; every fault of a token has a code of its own.
  return error instanceof TypeError || (error as { code?: unknown }).code === errors.JOSEError.code;
}

/** `scope` is a list in one text (RFC 8693, 4.2); some issuers send `scp`. */
function scopesOf({ scope, scp }: JWTPayload & { scp?: unknown }): string[] {
  const claim = scope ?? scp;
  return Array.isArray(claim) ? claim.map(String) : typeof claim === 'string' ? claim.split(' ') : [];
}
