import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyInstance } from 'fastify';
import helmet from 'helmet';

/** What Swagger UI needs of a browser: its own scripts, and styles that it writes into the page. */
const DOCS_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; " +
  "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/** The headers that every answer has, whatever it is: what browsers may make of it, and who may keep it. */
export function setAnswerHeaders(fastify: FastifyInstance, isStopping: () => boolean): void {
  const headers = helmetHeaders();
  fastify.addHook('onRequest', (_request, reply, done) => {
    reply.headers(headers);
    done();
  });
  fastify.addHook('onSend', ({ raw, routeOptions }, reply, payload, done) => {
    const route = routeOptions.url ?? '';
    if (/^\/docs\b/.test(route)) reply.header('Content-Security-Policy', DOCS_POLICY);
    if (route !== '/docs/*') reply.header('cache-control', 'no-store');
    if (endsConnection(raw, isStopping())) reply.header('Connection', 'close');
    done(null, payload);
  });
}

/**
 * Helmet's, which are the same for every answer: asked for once, as it works each of them out anew. In lower case, like the other
 * names that most answers have: Fastify makes a text of its own of each that is not, and looks that up.
 */
function helmetHeaders(): Record<string, string> {
  const headers: Record<string, string> = {};
  const setHeader = (name: string, value: string) => void (headers[name.toLowerCase()] = value);
  const answer = { setHeader, removeHeader: () => undefined } as unknown as ServerResponse;
  const setAll = helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
    },
    xFrameOptions: { action: 'deny' },
    // Whoever ends TLS in front of this says so; over plain HTTP it means nothing.
    strictTransportSecurity: false,
    crossOriginOpenerPolicy: false,
    originAgentCluster: false,
    xDnsPrefetchControl: false,
    xDownloadOptions: false,
    xPermittedCrossDomainPolicies: false,
    xXssProtection: false,
  });
  setAll({} as IncomingMessage, answer, (error) => {
    if (error) throw error as Error;
  });
  return headers;
}

/** True where the client is not to send another request: the rest of its body, which nobody wants, would be in the way. */
const endsConnection = (request: IncomingMessage, isStopping: boolean) => isStopping || !request.complete;
