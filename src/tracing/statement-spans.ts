import { type Attributes, type Span, SpanKind } from '@opentelemetry/api';
import { inSpan, markFailed, spanTracer, sqlStateOf } from './spans.js';

/** What is told of a statement's connection. */
export interface StatementTarget {
  host?: string | undefined;
  port?: number | undefined;
  database?: string | undefined;
}

/** Of a statement's text no more is looked at. */
const LOOKED_AT = 4096;
/** Texts whose names are remembered: few of them are not prepared. */
const REMEMBERED = 500;

/** What changes rows, also behind WITH; but no lock (`FOR NO KEY UPDATE`), nor what an INSERT does (`ON CONFLICT DO UPDATE`). */
const CHANGE =
  /(?<!\b(?:FOR|KEY|DO)\s)\b(INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO)\s+(?:ONLY\s+)?([\w."]+)/i;
const READ = /\b(?:FROM|COPY)\s+(?:ONLY\s+)?([\w."]+)/i;
const FIRST_WORD = /^[\s(]*([a-z]{1,20})\b/i;
const LITERAL = /'[^']*(?:'|$)/g;
/** Comments, `$$ … $$` and escapes: what stands in them could be taken for SQL. */
const UNCERTAIN = /--|\/\*|\$\w*\$|\\/;

interface Named {
  name: string;
  attributes: Attributes;
}
const names = new Map<string, Named>();

/** Runs one statement in a span as OpenTelemetry's conventions have it. Its text and its values are not told, as they may be anybody's. */
export function inStatementSpan<T>(text: string, target: StatementTarget, run: () => Promise<T>): Promise<T> {
  if (isInstrumented(target)) return run();
  const { name, attributes } = namedOf(text);
  return inSpan(
    name,
    { kind: SpanKind.CLIENT, attributes: { ...attributes, ...placeOf(target) } },
    async (span) => {
      try {
        return await run();
      } catch (error) {
        const code = sqlStateOf(error);
        if (code !== undefined) span?.setAttribute('db.response.status_code', code);
        throw error;
      }
    },
  );
}

/** The span of what is sent now and ends later, as a COPY does. @returns ends it */
export function startStatementSpan(text: string, target: StatementTarget): (error?: unknown) => void {
  const ours = isInstrumented(target) ? undefined : spanTracer();
  if (!ours) return () => undefined;
  const { name, attributes } = namedOf(text);
  const span: Span = ours.startSpan(name, {
    kind: SpanKind.CLIENT,
    attributes: { ...attributes, ...placeOf(target) },
  });
  return (error) => {
    if (error !== undefined) markFailed(span, error);
    span.end();
  };
}

/** True where OpenTelemetry's instrumentation of pg is at work, which makes these spans itself. */
const isInstrumented = (target: StatementTarget): boolean => {
  const { query } = target as { query?: { __wrapped?: unknown } };
  return query?.__wrapped === true;
};

const placeOf = ({ host, port, database }: StatementTarget): Attributes => ({
  ...(database !== undefined && { 'db.namespace': database }),
  ...(host !== undefined && { 'server.address': host }),
  ...(port !== undefined && { 'server.port': port }),
});

function namedOf(whole: string): Named {
  const text = whole.slice(0, LOOKED_AT);
  let named = names.get(text);
  if (named) return named;
  named = summaryOf(text);
  if (names.size >= REMEMBERED) names.clear();
  names.set(text, named);
  return named;
}

/** What is not plainly read has its first word alone: no part of a literal is to be told as the name of a table. */
function summaryOf(text: string): Named {
  const first = FIRST_WORD.exec(text)?.[1]?.toUpperCase() ?? 'QUERY';
  const plain = UNCERTAIN.test(text) ? '' : text.replace(LITERAL, '');
  const [, change, changed] = CHANGE.exec(plain) ?? [];
  const operation = change?.split(/\s/)[0]!.toUpperCase() ?? (first === 'WITH' ? 'SELECT' : first);
  const isRead = operation === 'SELECT' || operation === 'COPY';
  const collection = (changed ?? (isRead ? READ.exec(plain)?.[1] : undefined))?.replaceAll('"', '');
  return {
    name: collection ? `${operation} ${collection}` : operation,
    attributes: {
      'db.system.name': 'postgresql',
      'db.operation.name': operation,
      ...(collection && { 'db.collection.name': collection }),
    },
  };
}
