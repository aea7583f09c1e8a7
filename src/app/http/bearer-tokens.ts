import { UnauthorizedException } from '@nestjs/common';
import { errors, type JWTPayload, jwtVerify } from 'jose';
import type { AuthSettings } from '../settings.js';
import { issuerKeys, TokenKeysUnavailableError } from './issuer-keys.js';

/** Judges the bearer token of an `Authorization` header (RFC 6750). */
export type TokenVerifier = (authorization: string | undefined) => Promise<JWTPayload>;

/** No valid bearer token; `challenge` is for the header `WWW-Authenticate`. HTTP 401. */
export class BearerTokenException extends UnauthorizedException {
  constructor(
    message: string,
    readonly challenge: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

const SHOWN_CHARACTERS = 200;

/**
 * What judges tokens by these settings; undefined with `AUTH=none`.
 *
 * @throws BearerTokenException, TokenKeysUnavailableError from the function it returns
 */
export function tokenVerifier(auth: AuthSettings): TokenVerifier | undefined {
  if (auth.method === 'none') return undefined;
  const verify = verifierOf(auth);
  return async (authorization = '') => {
    const token = /^Bearer +(\S+)$/i.exec(authorization)?.[1];
    if (!token)
      throw new BearerTokenException('A bearer token is needed: Authorization: Bearer <token>.', 'Bearer');
    const invalid = (why: string, options?: ErrorOptions) =>
      new BearerTokenException(
        `The bearer token is not valid: ${why}.`,
        'Bearer error="invalid_token"',
        options,
      );
    // Before anything is parsed of it.
    if (token.length > auth.tokenLimitBytes) throw invalid(`it is longer than ${auth.tokenLimitBytes} bytes`);
    try {
      return await verify(token);
    } catch (error) {
      if (!(error instanceof errors.JOSEError)) throw error;
      // It may quote what the token says.
      throw invalid(error.message.slice(0, SHOWN_CHARACTERS), { cause: error });
    }
  };
}

function verifierOf(auth: Extract<AuthSettings, { method: 'jwt' }>) {
  const { jwksUrl, secret, issuer, audience } = auth;
  const options = { ...(issuer && { issuer }), ...(audience && { audience }), requiredClaims: ['exp'] };
  const keys = jwksUrl ? issuerKeys(jwksUrl, auth) : undefined;
  const key = new TextEncoder().encode(secret ?? '');
  // A shared secret takes HMAC alone, and keys of a JWKS never do, so neither can be passed off as the other.
  return async (token: string): Promise<JWTPayload> => {
    if (!keys) return (await jwtVerify(token, key, { ...options, algorithms: ['HS256'] })).payload;
    const algorithms = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'];
    try {
      return (await jwtVerify(token, keys, { ...options, algorithms })).payload;
    } catch (error) {
      // A fault of the token is told by an error of jose's own; whatever else goes wrong is about the keys.
      const isOfToken = error instanceof errors.JOSEError && !(error instanceof errors.JWKSInvalid);
      throw isOfToken || error instanceof TokenKeysUnavailableError
        ? error
        : new TokenKeysUnavailableError(error);
    }
  };
}

/** `scope` is a list in one text (RFC 8693, 4.2); some issuers send `scp`. */
export function scopesOf({ scope, scp }: JWTPayload & { scp?: unknown }): string[] {
  const claim = scope ?? scp;
  return Array.isArray(claim) ? claim.map(String) : typeof claim === 'string' ? claim.split(' ') : [];
}
