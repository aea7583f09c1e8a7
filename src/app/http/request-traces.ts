import { context, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { tracer } from '../../tracing/spans.js';
import { hasLocalSpan, runInTrace, traceHeadersOf } from '../../tracing/trace-context.js';

/** Asked again and again by whoever watches the service: a trace of each would hide the others. */
const OF_OPERATIONS = /^\/(health|metrics)\b/;

/**
 * Has all that a request does be part of its trace and of its request. With an SDK it has the span of an instrumentation of HTTP or
 * Fastify, or else one that is made here: never two.
 *
 * @param isAsked true where something asks for the id that a request is given here: events, comments of statements. Else only what a
 *   client sends is kept: on Node before 24 keeping anything makes every `await` of the process dearer.
 */
export function traceRequests(fastify: FastifyInstance, isAsked: boolean): void {
  fastify.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id);
    const ours = tracer();
    const headers = traceHeadersOf(request.headers, isAsked || ours ? request.id : undefined);
    runInTrace(headers, ours && !hasLocalSpan() ? () => inServerSpan(request, reply, done) : done);
  });
}

/** Neither the path nor the query is told: they name people. */
function inServerSpan(
  { method, protocol, routeOptions }: FastifyRequest,
  reply: FastifyReply,
  go: () => void,
) {
  const { url: route } = routeOptions;
  if (route !== undefined && OF_OPERATIONS.test(route)) return go();
  const span = tracer()!.startSpan(route === undefined ? method : `${method} ${route}`, {
    kind: SpanKind.SERVER,
    attributes: {
      'http.request.method': method,
      'url.scheme': protocol,
      ...(route !== undefined && { 'http.route': route }),
    },
  });
  const { raw } = reply;
  raw.once('close', () => {
    const { statusCode: status, headersSent } = raw;
    if (headersSent) span.setAttribute('http.response.status_code', status);
    if (status >= 500 && headersSent) span.setAttribute('error.type', String(status));
    if (status >= 500 || !raw.writableFinished) span.setStatus({ code: SpanStatusCode.ERROR });
    span.end();
  });
  context.with(trace.setSpan(context.active(), span), go);
}
