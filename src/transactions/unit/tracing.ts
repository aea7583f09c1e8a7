import { type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';

const tracer = trace.getTracer('nestjs-people');

/**
 * Runs `work` in an OpenTelemetry span, so that the spans of its statements hang below it. Without an SDK in the process
 * the span is none.
 */
export function inSpan<T>(name: string, work: (span: Span) => Promise<T>): Promise<T> {
  const attributes = { 'db.system.name': 'postgresql' };
  return tracer.startActiveSpan(name, { kind: SpanKind.CLIENT, attributes }, async (span) => {
    try {
      return await work(span);
    } catch (error) {
      span.recordException(error as Error);
      span.setStatus({ code: SpanStatusCode.ERROR, message: (error as Error).message });
      throw error;
    } finally {
      span.end();
    }
  });
}
