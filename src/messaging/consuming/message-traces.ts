import { type Attributes, propagation, ROOT_CONTEXT, SpanKind, trace } from '@opentelemetry/api';
import { hasTracer, inSpan } from '../../tracing/spans.js';
import { outgoingHeaders, runInTraceOfMessage, traceHeadersOf } from '../../tracing/trace-context.js';
import type { Delivery } from '../delivery.js';

/** Handles a message as a part of the trace that it came with: its span is a child of its sender's. */
export function inTraceOf<T>(delivery: Delivery, handle: () => Promise<T>): Promise<T> {
  const { record } = delivery;
  const headers = traceHeadersOf(record.headers);
  delivery.trace = headers;
  if (!hasTracer()) return runInTraceOfMessage(headers, handle);
  const { topic, partition, offset } = record;
  const attributes = {
    ...conventions(topic),
    'messaging.destination.partition.id': String(partition),
    'messaging.kafka.offset': Number(offset),
    'messaging.consumer.group.name': delivery.message.consumer,
  };
  return runInTraceOfMessage(headers, () =>
    inSpan(`process ${topic}`, { kind: SpanKind.CONSUMER, attributes }, () => {
      delivery.trace = outgoingHeaders();
      return handle();
    }),
  );
}

/** Does what follows the handling of a message, as a part of the trace that it was handled in. */
export const afterTraceOf = <T>(delivery: Delivery, work: () => T): T =>
  runInTraceOfMessage(delivery.trace ?? traceHeadersOf(delivery.record.headers), work);

/**
 * Handles messages together: one as a part of its own trace, several in a span of a trace of its own that is linked to those of their
 * senders, as OpenTelemetry's conventions have it.
 */
export function inTraceOfBatch<T>(batch: readonly Delivery[], handle: () => Promise<T>): Promise<T> {
  if (batch.length === 1) return inTraceOf(batch[0]!, handle);
  if (!hasTracer()) return runInTraceOfMessage(undefined, handle);
  const [topic, ...others] = new Set(batch.map(({ record }) => record.topic));
  const isOfOne = others.length === 0;
  const start = {
    kind: SpanKind.CONSUMER,
    attributes: {
      ...conventions(isOfOne ? topic : undefined),
      'messaging.batch.message_count': batch.length,
    },
    links: batch.flatMap(({ record }) => {
      const context = senderOf(record.headers);
      return context ? [{ context }] : [];
    }),
  };
  return runInTraceOfMessage(undefined, () =>
    inSpan(isOfOne ? `process ${topic}` : 'process', start, handle),
  );
}

function senderOf(headers: Delivery['record']['headers']) {
  const came = traceHeadersOf(headers);
  return came && trace.getSpanContext(propagation.extract(ROOT_CONTEXT, came));
}

const conventions = (topic: string | undefined): Attributes => ({
  'messaging.system': 'kafka',
  'messaging.operation.name': 'process',
  'messaging.operation.type': 'process',
  ...(topic !== undefined && { 'messaging.destination.name': topic }),
});
