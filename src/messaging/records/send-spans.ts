import { context, propagation, ROOT_CONTEXT, type Span, SpanKind, trace } from '@opentelemetry/api';
import { markFailed, tracer } from '../../tracing/spans.js';
import { traceHeadersOf, withActiveSpan } from '../../tracing/trace-context.js';
import type { OutgoingRecord } from './record.js';

/**
 * Sends records, each with a span of the trace that its headers name, which is what its consumer then continues. Without an SDK the
 * headers go as they are, and so do records without a trace.
 */
export async function inSendSpans(
  records: readonly OutgoingRecord[],
  send: (records: readonly OutgoingRecord[]) => Promise<void>,
): Promise<void> {
  const spans = tracer() ? records.flatMap(startSpan) : [];
  if (spans.length === 0) return send(records);
  try {
    await send(records);
  } catch (error) {
    for (const span of spans) markFailed(span, error);
    throw error;
  } finally {
    for (const span of spans) span.end();
  }
}

/** Dead letters and replays keep their headers as they came, and are no part of anybody's trace. */
function startSpan(record: OutgoingRecord): Span[] {
  const { topic, headers, rawHeaders } = record;
  const came = rawHeaders || !headers ? undefined : traceHeadersOf(headers);
  if (!came) return [];
  const parent = propagation.extract(ROOT_CONTEXT, came);
  if (!trace.getSpan(parent)) return [];
  const attributes = {
    'messaging.system': 'kafka',
    'messaging.operation.name': 'send',
    'messaging.operation.type': 'send',
    'messaging.destination.name': topic,
  };
  const span = tracer()!.startSpan(`send ${topic}`, { kind: SpanKind.PRODUCER, attributes }, parent);
  const own = context.with(trace.setSpan(parent, span), () => withActiveSpan(came));
  record.headers = { ...headers, ...own };
  return [span];
}
