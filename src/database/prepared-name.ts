import { createHash } from 'node:crypto';

/** Of a name; PostgreSQL cuts names to 63 bytes, and labels have room for the rest. */
const DIGEST_LENGTH = 16;

/**
 * The name under which a statement is prepared. It carries a digest of the text: a pooler, or a pool that two applications
 * share, may run what somebody else has prepared under the same name, which then is the same statement.
 *
 * @param label what it does, for whoever reads `pg_prepared_statements`; 46 characters at most
 */
export function preparedName(label: string, text: string): string {
  return `${createHash('sha256').update(text).digest('hex').slice(0, DIGEST_LENGTH)}_${label}`;
}
