import type { DataSource } from 'typeorm';
import { preparedName } from '../../database/prepared-name.js';
import { tableIn } from '../../database/table-name.js';
import type { Statement } from '../../transactions/transaction-context.js';
import type { MessageAnswer } from '../message-answer.js';
import type { MessageIdentity } from '../message-identity.js';

interface TextStatement extends Statement {
  name: string;
  values: (string | null)[];
}

/** Each statement takes its messages as one JSON text, so that one prepared plan serves any number of them. */
export function inboxStatements(dataSource: DataSource) {
  const table = tableIn(dataSource, 'message_inbox');
  const named = (name: string, text: string) => {
    const statement = { name: preparedName(`nestjs_people_inbox_${name}`, text), text };
    return (...values: (string | null)[]): TextStatement => ({ ...statement, values });
  };
  // In one order, so that two who claim the same messages don't deadlock; by bytes, as a language's order takes long to tell.
  const claim = named(
    'claim',
    `INSERT INTO ${table} (consumer, message_id, digest, topic, partition, "offset")
     SELECT consumer, id, digest, topic, partition, "offset"
     FROM json_to_recordset($1) AS m(consumer text, id text, digest text, topic text, partition int, "offset" bigint)
     ORDER BY consumer COLLATE "C", id COLLATE "C"`,
  );
  const keep = named(
    'keep',
    `UPDATE ${table} i SET reply = m.reply::json
     FROM json_to_recordset($1) AS m(consumer text, id text, reply text)
     WHERE i.consumer = m.consumer AND i.message_id = m.id`,
  );
  // The lock is for what it refuses: a standby answers nothing. One that was the primary may have rows that no other server has,
  // and what is taken for handled is lost then.
  const find = named(
    'find',
    `SELECT message_id, digest, topic, partition, "offset"::text, reply::text AS reply FROM ${table} i
     WHERE (consumer, message_id) IN (SELECT consumer, id FROM json_to_recordset($1) AS m(consumer text, id text))
     FOR KEY SHARE OF i`,
  );
  // SKIP LOCKED leaves out the rows that another instance is removing.
  const prune = named(
    'prune',
    `DELETE FROM ${table} d USING (
       SELECT i.consumer, i.message_id FROM ${table} i
       LEFT JOIN json_to_recordset($2) AS c(topic text, partition int, "offset" bigint)
         ON (i.consumer = $1 OR starts_with(i.consumer, $1 || '/')) AND i.topic = c.topic AND i.partition = c.partition
       WHERE i.handled_at < now() - $3::bigint * interval '1 ms'
         AND (i.topic IS NULL OR i."offset" < c."offset")
       LIMIT $4::int FOR UPDATE OF i SKIP LOCKED) old
     WHERE d.consumer = old.consumer AND d.message_id = old.message_id`,
  );
  const ids = (messages: readonly MessageIdentity[]) =>
    JSON.stringify(messages.map(({ consumer, messageId: id }) => ({ consumer, id })));
  return {
    claim: (messages: readonly MessageIdentity[]) => {
      const rows = messages.map(({ consumer, messageId: id, digest, place }) => ({
        consumer,
        id,
        digest,
        topic: place?.topic,
        partition: place?.partition,
        offset: place && String(place.offset),
      }));
      return claim(JSON.stringify(rows));
    },
    keep: (answers: readonly { message: MessageIdentity; answer: MessageAnswer }[]) => {
      // As text in the text: the server unescapes what it takes apart, and text can't hold \u0000.
      const rows = answers.map(({ message: { consumer, messageId: id }, answer }) => ({
        ...{ consumer, id, reply: JSON.stringify(answer) },
      }));
      return keep(JSON.stringify(rows));
    },
    find: (messages: readonly MessageIdentity[]) => find(ids(messages)),
    prune: (
      consumer: string,
      committed: readonly { topic: string; partition: number; offset: bigint }[],
      retentionMs: number,
      atMost: number,
    ) => {
      const offsets = committed.map(({ topic, partition, offset }) => ({
        ...{ topic, partition, offset: String(offset) },
      }));
      return prune(consumer, JSON.stringify(offsets), String(retentionMs), String(atMost));
    },
  };
}
