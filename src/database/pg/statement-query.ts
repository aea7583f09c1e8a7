import type { PoolClient, QueryResult, QueryResultRow } from 'pg';

type Callback = (error: Error | null, result: QueryResult) => void;
type QueryClass = new (
  text: string,
  values: readonly unknown[] | undefined,
  callback: Callback,
) => { name?: string | undefined };

/**
 * As `client.query(statement)`, which copies the statement by the descriptors of its properties (pg/lib/utils.js, since pg 8.23):
 * that takes longer than all else that is done of it here.
 *
 * @throws what pg throws
 */
export function sendStatement<Row extends QueryResultRow>(
  client: PoolClient,
  { name, text, values }: { name?: string | undefined; text: string; values?: readonly unknown[] },
): Promise<QueryResult<Row>> {
  return new Promise((resolve, reject) => {
    const { Query } = client.constructor as unknown as { Query: QueryClass };
    const query = new Query(text, values, (error, result) =>
      error ? reject(error) : resolve(result as QueryResult<Row>),
    );
    query.name = name;
    client.query(query as never);
  });
}
