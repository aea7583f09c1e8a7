import type { PoolClient, QueryConfig, QueryResult, QueryResultRow } from 'pg';

/** What pg's Query calls with the answer. */
export type Answered = (error: Error | null, result: QueryResult) => void;
/** pg's Query, or a class of ours that extends it. */
export type QueryClass<Query extends object = object> = new (
  config: string | QueryConfig,
  values: unknown[] | undefined,
  callback: Answered,
) => Query;

const PLAIN = ['name', 'text', 'values'];

/**
 * A statement as one of pg's Query: made of its text, as of an object pg takes a copy by the descriptors of its properties
 * (pg/lib/utils.js, since pg 8.23), which takes longer than all else that is done of a statement here.
 */
export function queryOf<Query extends object>(
  Class: QueryClass<Query>,
  statement: QueryConfig,
  callback: Answered,
): Query {
  // What else it may have decides how the answer is read, and is pg's to understand.
  if (!Object.keys(statement).every((key) => PLAIN.includes(key)))
    return new Class(statement, undefined, callback);
  const query = new Class(statement.text, statement.values as unknown[] | undefined, callback);
  (query as { name?: string | undefined }).name = statement.name;
  return query;
}

/** As `client.query(statement)`. @throws what pg throws */
export function sendStatement<Row extends QueryResultRow>(
  client: PoolClient,
  statement: QueryConfig,
): Promise<QueryResult<Row>> {
  return new Promise((resolve, reject) => {
    // Of the pg that made the client: an application may have more than one, and each trusts its own class only.
    const { Query } = client.constructor as unknown as { Query: QueryClass };
    const query = queryOf(Query, statement, (error, result) =>
      error ? reject(error) : resolve(result as QueryResult<Row>),
    );
    client.query(query as never);
  });
}
