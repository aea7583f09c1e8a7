import { KafkaHeaders } from '@nestjs/microservices';
import type { MessageError } from '../errors/error-responses.js';
import type { IncomingRecord, OutgoingRecord } from './kafka-driver.js';

/** Spring Kafka's default suffix, so that its tools find our dead letters. */
export const DEAD_LETTER_SUFFIX = '-dlt';

/** Headers count towards the size a broker accepts, and the original message may be near that already. */
const HEADER_CHARACTERS = 1000;

/**
 * The record for `<topic>-dlt`: the original bytes, key and headers, and beside them Spring Kafka's headers, which say
 * where the message was and what was wrong with it, and `people-attempts`.
 */
export function deadLetterRecord(
  { topic, partition, key, value, headers, offset, timestamp }: IncomingRecord,
  error: Pick<MessageError, 'code' | 'message'>,
  attempts: number,
): OutgoingRecord {
  const cut = (text: string) =>
    text.length > HEADER_CHARACTERS ? `${text.slice(0, HEADER_CHARACTERS - 1)}…` : text;
  return {
    topic: `${topic}${DEAD_LETTER_SUFFIX}`,
    key,
    value,
    headers: {
      ...headers,
      [KafkaHeaders.DLT_ORIGINAL_TOPIC]: topic,
      [KafkaHeaders.DLT_ORIGINAL_PARTITION]: String(partition),
      [KafkaHeaders.DLT_ORIGINAL_OFFSET]: String(offset),
      [KafkaHeaders.DLT_ORIGINAL_TIMESTAMP]: timestamp,
      [KafkaHeaders.DLT_EXCEPTION_FQCN]: error.code,
      [KafkaHeaders.DLT_EXCEPTION_MESSAGE]: cut(error.message),
      'people-attempts': String(attempts),
    },
  };
}
