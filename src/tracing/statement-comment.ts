import { outgoingHeaders } from './trace-context.js';

/**
 * The comment that names a statement's request and trace, as sqlcommenter has it; undefined where there is neither.
 *
 * @see https://google.github.io/sqlcommenter/spec/
 */
export function statementComment(): string | undefined {
  const { traceparent, 'x-request-id': requestId } = outgoingHeaders() ?? {};
  const pairs = [
    ...(requestId === undefined ? [] : [`request_id='${encodeURIComponent(requestId)}'`]),
    ...(traceparent === undefined ? [] : [`traceparent='${encodeURIComponent(traceparent)}'`]),
  ];
  return pairs.length === 0 ? undefined : ` /*${pairs.join()}*/`;
}
