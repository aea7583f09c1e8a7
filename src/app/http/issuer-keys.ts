import { createRemoteJWKSet, customFetch, type FetchImplementation, type JWTVerifyGetKey } from 'jose';
import { ApplicationError, unchanged } from '../../errors/application-error.js';

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

/** What the answer of an issuer may take. */
export interface IssuerBounds {
  jwksLimitBytes: number;
  jwksTimeoutMs: number;
}

/**
 * The keys at `jwksUrl`, asked for again when a token names one that is not there. Redirects are not followed.
 *
 * @throws TokenKeysUnavailableError from the function it returns
 */
export function issuerKeys(
  jwksUrl: string,
  { jwksLimitBytes, jwksTimeoutMs }: IssuerBounds,
): JWTVerifyGetKey {
  const url = new URL(jwksUrl);
  const { username, password } = url;
  url.username = url.password = '';
  const authorization = `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')}`;
  const fetchBounded: FetchImplementation = async (_url, options) => {
    try {
      // fetch refuses URLs with credentials.
      if (username || password) options.headers.set('authorization', authorization);
      const response = await fetch(url, options);
      if (response.status !== 200) {
        await response.body?.cancel();
        throw new Error(`The issuer answered ${response.status}.`);
      }
      return Response.json(keysOf(await textOf(response, jwksLimitBytes)));
    } catch (cause) {
      throw new TokenKeysUnavailableError(cause);
    }
  };
  return createRemoteJWKSet(url, { [customFetch]: fetchBounded, timeoutDuration: jwksTimeoutMs });
}

/** Ends the connection past the bound. */
async function textOf({ body }: Response, limitBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of (body ?? []) as AsyncIterable<Uint8Array>) {
    length += chunk.length;
    if (length > limitBytes) throw new Error(`The issuer's answer is larger than ${limitBytes} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function keysOf(text: string): { keys: object[] } {
  const answer = JSON.parse(text) as { keys?: unknown } | null;
  if (!Array.isArray(answer?.keys) || !answer.keys.every((key) => typeof key === 'object' && key !== null))
    throw new Error('The issuer answered something else than a JSON Web Key Set.');
  return answer as { keys: object[] };
}
