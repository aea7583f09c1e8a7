// tracing/: Which trace and which request running code is part of, and the spans of what it does.
// Promises: what came in goes out again, with or without an OpenTelemetry SDK; without one a span costs nothing; no values of people.
// May know: nothing else of src; of OpenTelemetry its API alone, never an SDK.

import { context, propagation, ROOT_CONTEXT, trace } from '@opentelemetry/api';
import { places, type TraceHeaders } from './place.js';
import { hasTracer } from './spans.js';

export { type TraceHeaders } from './place.js';

/** The header that names a request. */
const REQUEST_ID = 'x-request-id';

/** W3C Trace Context and Baggage with the lengths that they ask everybody to take, and the id of a request. */
const FORMS: readonly (readonly [name: string, form: RegExp])[] = [
  ['traceparent', /^(?!ff)[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}$/],
  ['tracestate', /^[\x20-\x7e\t]{1,512}$/],
  ['baggage', /^[\x20-\x7e\t]{1,8192}$/],
  [REQUEST_ID, /^[\w.:-]{1,128}$/],
];
const NAMES = new Set(FORMS.map(([name]) => name));
/** Of headers that only the SDK's propagators know (`OTEL_PROPAGATORS`: b3, jaeger). */
const OTHERS_FORM = /^[\x20-\x7e]{1,512}$/;
const LONGEST = 8192;

/** True for a text that may name a request. */
export const isRequestId = (value: unknown): value is string =>
  typeof value === 'string' && FORMS[3]![1].test(value);

/**
 * What of the headers of a request or a message is to be passed on; undefined where there is nothing. What is not valid is left out.
 *
 * @param headers by their names in lower case, as Node and Kafka's clients have them
 * @param requestId takes the place of `x-request-id`
 */
export function traceHeadersOf(
  headers: Readonly<Record<string, unknown>>,
  requestId?: string,
): TraceHeaders | undefined {
  let found: Record<string, string> | undefined;
  for (const [name, form] of FORMS) {
    const value = name === REQUEST_ID && requestId !== undefined ? requestId : textOf(headers[name]);
    if (value === undefined || !form.test(value)) continue;
    // Without the trace that it is about it says nothing.
    if (name === 'tracestate' && !found?.traceparent) continue;
    (found ??= {})[name] = value;
  }
  if (!hasTracer()) return found;
  for (const name of propagation.fields()) {
    const value = NAMES.has(name) ? undefined : textOf(headers[name]);
    if (value !== undefined && OTHERS_FORM.test(value)) (found ??= {})[name] = value;
  }
  return found;
}

/** Kafka's headers are bytes, and may stand in a record more than once: a list goes on, and an id is none then. */
function textOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (Buffer.isBuffer(value)) return value.length > LONGEST ? undefined : value.toString('latin1');
  if (!Array.isArray(value) || value.length > LONGEST) return undefined;
  return value.map((part) => textOf(part) ?? '').join(',');
}

/**
 * Runs `work` as a part of the trace and the request that the headers name. With an SDK a span that is active already stays the
 * parent of what follows: whoever made it has read the same headers.
 */
export function runInTrace<T>(headers: TraceHeaders | undefined, work: () => T): T {
  if (!headers) return work();
  if (!hasTracer() || hasLocalSpan()) return places.run({ headers }, work);
  return places.run({ headers }, () => context.with(propagation.extract(context.active(), headers), work));
}

/**
 * Runs what nobody has asked for, and what comes again and again: without spans, and apart from whatever trace there is. Where there is none
 * nothing is kept, which would make each `await` of the process dearer on Node before 24.
 */
export function runUntraced<T>(work: () => T): T {
  if (!hasTracer() && places.getStore() === undefined) return work();
  return places.run({ headers: undefined, isUntraced: true }, work);
}

/** True in what `runInTrace` runs. */
export const isInTrace = (): boolean => places.getStore()?.headers !== undefined;

/** Runs the handling of a message as a part of the trace and the request that its headers name, whatever runs it. */
export function runInTraceOfMessage<T>(headers: TraceHeaders | undefined, work: () => T): T {
  // Where there is nothing to be kept, and nothing to be kept from it, nothing is: see `runUntraced`.
  if (!hasTracer()) return headers || places.getStore() ? places.run({ headers }, work) : work();
  const sender = headers ? propagation.extract(ROOT_CONTEXT, headers) : ROOT_CONTEXT;
  return places.run({ headers }, () => context.with(sender, work));
}

/** True where a span of this process is active, rather than none or that of whoever has called it. */
export function hasLocalSpan(): boolean {
  const span = trace.getActiveSpan()?.spanContext();
  return span !== undefined && !span.isRemote;
}

/** What goes out with whatever running code sends: as it came in, or as the SDK has it by now. */
export function outgoingHeaders(): TraceHeaders | undefined {
  const place = places.getStore();
  if (!hasTracer() || place?.isUntraced) return place?.headers;
  return withActiveSpan(place?.headers);
}

/** The same as JSON, to be stored; null where there is nothing. */
export function outgoingJson(): string | null {
  const place = places.getStore();
  if (hasTracer()) {
    const headers = outgoingHeaders();
    return headers ? JSON.stringify(headers) : null;
  }
  if (!place?.headers) return null;
  return (place.json ??= JSON.stringify(place.headers));
}

/** The same for what is stored once for each of many: without what may be long (`tracestate`, `baggage`). */
export function outgoingJsonOfMany(): string | null {
  const { traceparent, [REQUEST_ID]: requestId } = outgoingHeaders() ?? {};
  if (traceparent === undefined && requestId === undefined) return null;
  return JSON.stringify({ traceparent, [REQUEST_ID]: requestId });
}

/** @param came what came in, of which the SDK's propagators write what they know anew */
export function withActiveSpan(came: TraceHeaders | undefined): TraceHeaders | undefined {
  const carrier: Record<string, string> = {};
  propagation.inject(context.active(), carrier);
  if (Object.keys(carrier).length === 0) return came;
  const { traceparent: _parent, tracestate: _state, ...rest } = came ?? {};
  return { ...(carrier.traceparent === undefined ? came : rest), ...carrier };
}

/** What names the trace and the request of running code: for a log line, or the comment of a statement. */
export function currentIds(): { requestId?: string; traceId?: string } | undefined {
  const headers = places.getStore()?.headers;
  const active = hasTracer() ? trace.getActiveSpan()?.spanContext().traceId : undefined;
  const traceId = active ?? headers?.traceparent?.slice(3, 35);
  const requestId = headers?.[REQUEST_ID];
  if (traceId === undefined && requestId === undefined) return undefined;
  return { ...(requestId !== undefined && { requestId }), ...(traceId !== undefined && { traceId }) };
}
