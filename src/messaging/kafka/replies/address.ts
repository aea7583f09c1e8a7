import { KafkaHeaders } from '@nestjs/microservices';
import type { ReplyAddress } from '../../delivery.js';
import { headerText } from '../../message-identity.js';
import type { IncomingRecord, RecordHeaders } from '../../records/record.js';

const PARTITION = /^\d{1,9}$/;
const INT_BYTES = 4;

/** Where the sender waits for a reply, if it does. */
export function replyAddressOf({ headers }: Pick<IncomingRecord, 'headers'>): ReplyAddress | undefined {
  const given = headers[KafkaHeaders.CORRELATION_ID];
  // Most messages ask for no reply.
  if (given === undefined) return undefined;
  const [correlation] = [given].flat();
  const topic = headerText(headers, KafkaHeaders.REPLY_TOPIC);
  if (!correlation || correlation.length === 0 || !topic) return undefined;
  return { topic, correlationId: correlation, partition: replyPartitionOf(headers) };
}

/**
 * Nest sends the number as decimal text, Spring as an int of four bytes. Four digits are text: as an int they would be a number
 * above 800 million, which no topic has. An empty value says nothing.
 */
function replyPartitionOf(headers: RecordHeaders): number | undefined {
  const [value] = [headers[KafkaHeaders.REPLY_PARTITION]].flat();
  if (value === undefined || value.length === 0) return undefined;
  const text = value.toString();
  if (PARTITION.test(text)) return Number(text);
  if (!Buffer.isBuffer(value) || value.length !== INT_BYTES) return NaN;
  const number = value.readInt32BE();
  return number < 0 ? NaN : number;
}
