import { tableIn } from '../../database/table-name.js';
import type { MessageStore } from '../message-store.js';
import { partitionKey, type TopicPartition } from '../records/record.js';

/** Where a record stands. */
export interface RecordPlace extends TopicPartition {
  offset: bigint | string;
}

/** Names a place. */
export const placeName = (at: RecordPlace): string => `${partitionKey(at)} ${at.offset}`;

/** Those of the places, by `placeName`, whose messages are dead letters or are parked, or were. */
export async function placesOfLetters(
  { transactions }: MessageStore,
  consumer: string,
  places: readonly RecordPlace[],
): Promise<Set<string>> {
  if (places.length === 0) return new Set();
  const letters = tableIn(transactions.dataSource, 'message_dead_letter');
  const text = `SELECT topic, partition, "offset"::text FROM ${letters}
     WHERE consumer = $1 AND (topic, partition, "offset") IN
       (SELECT topic, partition, "offset" FROM json_to_recordset($2) AS p(topic text, partition int, "offset" bigint))`;
  const rows = places.map(({ topic, partition, offset }) => ({ topic, partition, offset: String(offset) }));
  const found = await transactions.runStatement<TopicPartition & { offset: string }>(
    { text, values: [consumer, JSON.stringify(rows)] },
    { writes: false },
  );
  return new Set(found.rows.map(placeName));
}
