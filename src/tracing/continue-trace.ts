import { isInTrace, runInTrace, traceHeadersOf } from './trace-context.js';

/**
 * Middleware for a host's own routes (`app.use(continueTrace)`): what a request does is part of the trace that its headers name
 * (`traceparent`, `tracestate`, `baggage`) and of its request (`x-request-id`), and so are the events that it publishes. The routes of
 * people have it already.
 */
export function continueTrace(
  request: { headers: Readonly<Record<string, unknown>> },
  _response: unknown,
  next: () => void,
): void {
  if (isInTrace()) next();
  else runInTrace(traceHeadersOf(request.headers), next);
}
