import type { DataSource } from 'typeorm';
import { preparedName } from '../../database/prepared-name.js';
import { tableIn } from '../../database/table-name.js';
import type { Statement } from '../../transactions/transaction-context.js';

/** What an instance finds when it looks who has crashed. */
export interface CrashReport {
  /** Instances that have not said good-bye, and give no sign of life. */
  crashed: number;
  /** Messages that those had begun, by id, with how often an instance has crashed over them. */
  left: Record<string, number>;
}

/** How long an instance that crashed is remembered. */
const REMEMBERED = `interval '10 minutes'`;

/** @param instance the id of this one */
export function crashStatements(
  dataSource: DataSource,
  consumer: string,
  instance: string,
  silenceMs: number,
) {
  const instances = tableIn(dataSource, 'message_instance');
  const trials = tableIn(dataSource, 'message_trial');
  const inbox = tableIn(dataSource, 'message_inbox');
  const named = (name: string, text: string) => {
    const statement = { name: preparedName(`nestjs_people_crash_${name}`, text), text };
    return (...values: unknown[]): Statement => ({ ...statement, values: [consumer, ...values] });
  };
  const beat = `INSERT INTO ${instances} (consumer, id) VALUES ($1, $2::uuid)
    ON CONFLICT (consumer, id) DO UPDATE SET seen_at = now()`;
  const silent = `i.seen_at < now() - $3::int * interval '1 ms'`;
  const alive = named('beat', beat);
  const look = named(
    'look',
    `WITH alive AS (${beat}),
       forgotten AS (DELETE FROM ${instances} WHERE consumer = $1 AND seen_at < now() - ${REMEMBERED}),
       handled AS (DELETE FROM ${trials} t USING ${inbox} i
         WHERE t.consumer = $1 AND i.consumer = t.consumer AND i.message_id = t.message_id)
     SELECT (SELECT count(*)::int FROM ${instances} i WHERE i.consumer = $1 AND i.id <> $2 AND ${silent}) AS crashed,
       (SELECT coalesce(json_object_agg(message_id, count), '{}') FROM ${trials} t WHERE t.consumer = $1 AND t.instance <> $2
         AND NOT EXISTS (SELECT FROM ${instances} i WHERE i.consumer = $1 AND i.id = t.instance AND NOT ${silent})) AS "left"`,
  );
  // The row must survive a crash of this process, not of the server, so the commit need not wait for the disk.
  const begin = named(
    'begin',
    `INSERT INTO ${trials} (consumer, message_id, instance, count)
     SELECT $1, $2, $3::uuid, $4::int FROM set_config('synchronous_commit', 'off', true)
     WHERE NOT EXISTS (SELECT FROM ${inbox} WHERE consumer = $1 AND message_id = $2)
     ON CONFLICT (consumer, message_id) DO UPDATE SET instance = EXCLUDED.instance, count = EXCLUDED.count`,
  );
  const end = named('end', `DELETE FROM ${trials} WHERE consumer = $1 AND message_id = $2`);
  const leave = named(
    'leave',
    `WITH ended AS (DELETE FROM ${trials} WHERE consumer = $1 AND instance = $2::uuid)
     DELETE FROM ${instances} WHERE consumer = $1 AND id = $2::uuid`,
  );
  return {
    alive: () => alive(instance),
    look: () => look(instance, silenceMs),
    /** Changes no row where the message was handled before. @param count which trial it is */
    begin: (messageId: string, count: number) => begin(messageId, instance, count),
    end: (messageId: string) => end(messageId),
    leave: () => leave(instance),
  };
}
