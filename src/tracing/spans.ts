import {
  type Attributes,
  context,
  type Link,
  type ProxyTracerProvider,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
  type Tracer,
} from '@opentelemetry/api';
import { places } from './place.js';

const NAME = 'nestjs-people';

/** What a span is begun with. */
export interface SpanStart {
  /** Left out: internal. */
  kind?: SpanKind;
  attributes?: Attributes;
  /** Other spans that it is about. */
  links?: Link[];
  /** True for one that has none of the active span's trace. */
  isRoot?: boolean;
}

/** The tracer of the SDK in this process; undefined without one. It may be registered at any time. */
export function tracer(): Tracer | undefined {
  const provider = trace.getTracerProvider() as Partial<ProxyTracerProvider> | undefined;
  return provider?.getDelegateTracer ? provider.getDelegateTracer(NAME) : trace.getTracer(NAME);
}

/** True with an SDK in this process. Without one nothing of OpenTelemetry is called, as its no-ops cost a microsecond a unit of work. */
export const hasTracer = (): boolean => tracer() !== undefined;

/** The same where running code makes spans. */
export function spanTracer(): Tracer | undefined {
  const ours = tracer();
  return ours && !places.getStore()?.isUntraced ? ours : undefined;
}

/**
 * Runs `work` in a span, so that those of what it does hang below it.
 *
 * @param work without an SDK it is given none
 */
export function inSpan<T>(
  name: string,
  start: SpanStart,
  work: (span: Span | undefined) => Promise<T>,
): Promise<T> {
  const ours = spanTracer();
  return ours ? inSpanOf(ours, name, start, work) : work(undefined);
}

async function inSpanOf<T>(
  ours: Tracer,
  name: string,
  { isRoot = false, ...start }: SpanStart,
  work: (span: Span | undefined) => Promise<T>,
): Promise<T> {
  const parent = isRoot ? ROOT_CONTEXT : context.active();
  const span = ours.startSpan(name, start, parent);
  try {
    return await context.with(trace.setSpan(parent, span), () => work(span));
  } catch (error) {
    markFailed(span, error);
    throw error;
  } finally {
    span.end();
  }
}

/** Runs `work` below a span that somebody else ends. */
export const belowSpan = <T>(span: Span | undefined, work: () => T): T =>
  span ? context.with(trace.setSpan(context.active(), span), work) : work();

/** Links to spans, of those that there are. */
export const linksTo = (spans: readonly (Span | undefined)[]): Link[] =>
  spans.flatMap((span) => (span ? [{ context: span.spanContext() }] : []));

/** Says what ended the work of a span. Not in the error's words, which may have values of people in them. */
export function markFailed(span: Span, error: unknown): void {
  span.setAttribute('error.type', errorType(error));
  span.setStatus({ code: SpanStatusCode.ERROR });
}

/** The SQLSTATE of what the server has said, or the error's name: of either there are few. */
export function errorType(error: unknown): string {
  const { name } = (error ?? {}) as { name?: unknown };
  return sqlStateOf(error) ?? (typeof name === 'string' ? name : typeof error);
}

/** undefined for an error that the server has not sent: those of the system have codes, too, but no severity. */
export function sqlStateOf(error: unknown): string | undefined {
  const { code, severity } = (error ?? {}) as { code?: unknown; severity?: unknown };
  return typeof severity === 'string' && typeof code === 'string' ? code : undefined;
}
