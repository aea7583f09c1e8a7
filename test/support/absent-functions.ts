/** What engines lack that speak PostgreSQL's language, each as a function ahead of PostgreSQL's own that says so. */
export const ABSENCES: Record<string, string[]> = {
  'ids of transactions': ['pg_current_xact_id_if_assigned()'],
  'what became of a transaction': ['pg_xact_status(xid8)'],
  'the time that statistics were reset': ['pg_stat_get_bgwriter_stat_reset_time()'],
  'where its WAL is': ['pg_current_wal_lsn()', 'pg_walfile_name(pg_lsn)'],
  'ending of sessions': ['pg_terminate_backend(int)', 'pg_terminate_backend(int, bigint)'],
  'advisory locks': [
    'pg_try_advisory_lock(bigint)',
    'pg_try_advisory_xact_lock(bigint)',
    'pg_advisory_unlock(bigint)',
  ],
  'process ids and settings': ['pg_backend_pid()', 'set_config(text, text, boolean)'],
  notifications: ['pg_notify(text, text)'],
};
/** Without these nothing is known of a transaction by its id. */
export const NO_IDS = [
  'ids of transactions',
  'what became of a transaction',
  'the time that statistics were reset',
];

/** The search_path on which `takeAway` has an effect. */
export const WITHOUT_THEM = 'absent,pg_catalog,public';

/** Puts functions that refuse ahead of those of PostgreSQL, for sessions with `WITHOUT_THEM`. */
export async function takeAway(
  absences: readonly string[],
  database: { query(text: string): Promise<unknown> },
): Promise<void> {
  await database.query('CREATE SCHEMA absent');
  for (const signature of absences.flatMap((absence) => ABSENCES[absence]!))
    await database.query(
      `CREATE FUNCTION absent.${signature} RETURNS text LANGUAGE plpgsql AS
       $$ BEGIN RAISE EXCEPTION 'function not supported' USING ERRCODE = '0A000'; END $$`,
    );
}
