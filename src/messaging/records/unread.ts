import { ApplicationError } from '../../errors/application-error.js';
import type { IncomingRecord, RecordHeaders, UnreadPart } from './record.js';
import { noHeaders, RECORD_LIMITS } from './limits.js';
import { RecordReader } from './reader.js';

/** A record is past a limit, and is a dead letter as it is. HTTP 413. */
export class RecordTooLargeError extends ApplicationError {
  constructor(record: IncomingRecord, reason: string) {
    super(`${reason}. ${whereIs(record)} Send less at once, or raise the transport's limits.`, {
      type: 'record-too-large',
      status: 413,
    });
  }
}

/** A record is in a form that this client does not know, and is a dead letter as it is. HTTP 415. */
export class RecordUnreadableError extends ApplicationError {
  constructor(record: IncomingRecord, reason: string) {
    super(`${reason}. ${whereIs(record)} Send it in another form, or choose a client that knows this one.`, {
      type: 'record-unreadable',
      status: 415,
    });
  }
}

/** Why a record is not handled that was not read whole. */
export const unreadRecordError = (record: IncomingRecord, { code, reason }: UnreadPart): ApplicationError =>
  code === 'RECORD_TOO_LARGE'
    ? new RecordTooLargeError(record, reason)
    : new RecordUnreadableError(record, reason);

const whereIs = ({ topic, partition, offset }: IncomingRecord) =>
  `It was not handled; it is at ${topic}, partition ${partition}, offset ${offset}.`;

/**
 * The first headers of a record that was not read whole, as many as any record may have: enough to tell its sender why, where that is
 * said among them.
 */
export function firstHeadersOf({ headers: bytes }: UnreadPart): RecordHeaders {
  if (!bytes) return noHeaders();
  try {
    const reader = new RecordReader(bytes);
    return reader.headers(Math.min(reader.varint(), RECORD_LIMITS.headers));
  } catch {
    return noHeaders();
  }
}
