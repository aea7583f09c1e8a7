import type { PoolClient, QueryConfig, QueryResult } from 'pg';
import { TransactionUsageError } from '../transaction-errors.js';
import type { TransactionSession } from './session.js';
import { NOTHING, type Submittable } from './statements.js';

const BEGIN = /^(?:START TRANSACTION|SET TRANSACTION ISOLATION LEVEL .*)$/;

/**
 * A pg client on which TypeORM and other libraries work in the session: it sends nothing once the attempt is over, and can't
 * be released.
 */
export function clientOf(session: TransactionSession): PoolClient {
  const query = queryOn(session);
  return new Proxy({} as PoolClient, {
    get: (_, key) => {
      if (key === 'query') return query;
      if (key === 'release' || key === 'end') return refuseRelease;
      const value: unknown = Reflect.get(session.connection.client, key);
      return typeof value === 'function' ? (value.bind(session.connection.client) as unknown) : value;
    },
  });
}

/** `client.query` in all its forms. */
function queryOn(session: TransactionSession) {
  return (
    statement: string | QueryConfig | Submittable,
    values?: unknown[],
    callback?: (error: unknown, result?: QueryResult) => void,
  ): unknown => {
    if (typeof statement === 'object' && 'submit' in statement) return session.submit(statement);
    const config = typeof statement === 'string' ? { text: statement } : statement;
    const result =
      fromTypeOrm(session, config.text) ??
      session.query({ ...config, ...(Array.isArray(values) && { values }) });
    const callBack = callback ?? (typeof values === 'function' ? (values as typeof callback) : undefined);
    if (!callBack) return result;
    result.then(
      (done) => callBack(null, done),
      (error: unknown) => callBack(error),
    );
    return undefined;
  };
}

/** What TypeORM's QueryRunner sends on behalf of the runner: its BEGIN waits for the first statement. */
function fromTypeOrm(session: TransactionSession, text: string): Promise<QueryResult> | undefined {
  const { is } = session.state.now;
  if (is === 'starting' && BEGIN.test(text)) return Promise.resolve(NOTHING);
  if (is === 'ending' && text === 'COMMIT') return session.commit();
  if (is === 'ending' && text === 'ROLLBACK') return session.rollBack().then(() => NOTHING);
  return undefined;
}

function refuseRelease(): never {
  throw new TransactionUsageError('The client of a transaction is given back when the transaction ends.');
}
