import type { PoolClient, QueryConfig, QueryResult, QueryResultRow } from 'pg';
import { type Answered, type QueryClass as AnyQueryClass, queryOf } from './statement-query.js';

/**
 * A statement that is sent with another and gives no rows, with its parameters as the server reads them. Without a name it is
 * parsed each time.
 */
export interface PipelinedStatement {
  name?: string | undefined;
  text: string;
  values: readonly (string | null)[];
}

/** What is sent with a statement, in one write and one answer. */
export interface Around {
  /** Run first; when one of them fails, nothing that stands behind it is run. Texts have no parameters. */
  before?: readonly (string | PipelinedStatement)[];
  /** A query of one row and one column, run when the statement has succeeded. */
  after?: { name?: string | undefined; text: string };
  /** A text without parameters, run when all else has succeeded. */
  last?: string;
}

/** How far the server got, also where it failed. */
export interface Progress {
  /** How many of `before` are done. */
  beforeDone: number;
  /** True once the statement itself is done. */
  isDone: boolean;
  /** The value that `after` gave; undefined when it was not run. */
  after: string | null | undefined;
  /** What the server says it has done for `last`; undefined when it was not run. */
  lastCommand: string | undefined;
}

export const noProgress = (): Progress => ({
  beforeDone: 0,
  isDone: false,
  after: undefined,
  lastCommand: undefined,
});

// What a subclass of pg's Query may rely on (pg/lib/query.js, pg/lib/connection.js); pg-cursor and pg-query-stream use the same.
export interface QueryConnection {
  parse(message: { text: string; name?: string }): void;
  close(message: { type: 'S'; name: string }): void;
  bind(message: object): void;
  execute(message: { portal?: string }): void;
  sync(): void;
  /** Names whose Parse is on its way; since pg 8.23, which may send the next statement meanwhile. */
  submittedNamedStatements?: Record<string, string>;
}
interface Query {
  callback: unknown;
  queryMode?: string | undefined;
  portal: string;
  submit(connection: QueryConnection): Error | null;
  prepare(connection: QueryConnection): void;
  handleCommandComplete(message: { text: string }, connection: QueryConnection): void;
  handleDataRow(message: { fields: (string | null)[] }): void;
  handleEmptyQuery(connection: QueryConnection): void;
  handleError(error: Error, connection: QueryConnection): void;
  handleReadyForQuery(connection: QueryConnection): void;
}
export type QueryClass = AnyQueryClass<Query>;
type PipelinedQuery = Query & { around: Around; progress: Progress; name: string | undefined };
type PipelinedQueryClass = new (...parameters: ConstructorParameters<QueryClass>) => PipelinedQuery;

/**
 * Sends a statement together with others, without waiting for the answers in between.
 *
 * pg's own pipeline mode ends each query with a Sync, and behind a Sync the server goes on after an error: a BEGIN that
 * fails would leave the statement behind it to run in a transaction of its own. Here one Sync stands at the end, so an
 * error skips the rest (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING).
 *
 * @param progress is filled in as the answers come, so that it tells how far the server got even when this rejects
 * @throws what pg throws
 */
export function sendPipelined<Row extends QueryResultRow>(
  client: PoolClient,
  statement: QueryConfig,
  around: Around,
  progress: Progress,
): Promise<QueryResult<Row>> {
  return new Promise((resolve, reject) => {
    // Of the pg that made the client: an application may have more than one, and each trusts its own class only.
    const { Query } = client.constructor as unknown as { Query: QueryClass };
    const query = pipelinedQuery(Query, statement, around, progress, (error, result) =>
      error ? reject(error) : resolve(result as QueryResult<Row>),
    );
    client.query(query as never);
  });
}

/** False for several statements in one text, COPY and cursors, which speak for themselves. */
export function canBePipelined(statement: object): boolean {
  if ('submit' in statement || ('rows' in statement && statement.rows)) return false;
  const { text, values } = statement as QueryConfig;
  return Boolean(values?.length) || (text !== undefined && !text.trimEnd().slice(0, -1).includes(';'));
}

/** What `client.query` takes for a statement that is sent with others. */
export function pipelinedQuery(
  Query: QueryClass,
  statement: QueryConfig,
  around: Around,
  progress: Progress,
  callback: Answered,
): PipelinedQuery {
  const Class = classFor(Query);
  const query = queryOf(Class, statement, callback);
  query.queryMode = 'extended';
  query.around = around;
  query.progress = progress;
  return query;
}

const classes = new WeakMap<QueryClass, PipelinedQueryClass>();

function classFor(Query: QueryClass): PipelinedQueryClass {
  let pipelined = classes.get(Query);
  if (!pipelined) classes.set(Query, (pipelined = subclassOf(Query)));
  return pipelined;
}

function subclassOf(Base: QueryClass): PipelinedQueryClass {
  return class extends Base {
    around: Around = {};
    progress: Progress = noProgress();
    private sent = false;
    private afterDone = false;
    private ownName: string | undefined;

    /**
     * pg takes each ParseComplete for the statement with this name. Those of `before` come first, and would make it believe
     * that the connection knows a name which the server may have skipped.
     */
    get name(): string | undefined {
      const isAhead = this.sent && this.progress.beforeDone < (this.around.before?.length ?? 0);
      return isAhead ? undefined : this.ownName;
    }
    set name(name: string | undefined) {
      this.ownName = name;
    }

    override prepare(connection: QueryConnection): void {
      for (const first of this.around.before ?? []) run(connection, first);
      super.prepare(connection);
      this.sent = true;
    }

    /** pg's way to end `prepare`: the statement's Execute, then the Sync. */
    _getRows(connection: QueryConnection): void {
      connection.execute({ portal: this.portal });
      const { after, last } = this.around;
      if (after) runPrepared(connection, after);
      if (last !== undefined) run(connection, last);
      connection.sync();
    }

    override handleCommandComplete(message: { text: string }, connection: QueryConnection): void {
      const { progress } = this;
      const { before, after } = this.around;
      const first = before?.[progress.beforeDone];
      if (first !== undefined) {
        if (typeof first !== 'string' && first.name) preparedOn(connection).add(first.name);
        progress.beforeDone++;
      } else if (!progress.isDone) {
        progress.isDone = true;
        super.handleCommandComplete(message, connection);
      } else if (after && !this.afterDone) {
        this.afterDone = true;
        if (after.name) preparedOn(connection).add(after.name);
      } else progress.lastCommand = message.text;
    }

    /** pg has noted the name when it sent the Parse, and asks `name`, which is hidden then, to forget it. */
    override handleError(error: Error, connection: QueryConnection): void {
      if (this.ownName) delete connection.submittedNamedStatements?.[this.ownName];
      super.handleError(error, connection);
    }

    override handleEmptyQuery(connection: QueryConnection): void {
      this.progress.isDone = true;
      super.handleEmptyQuery(connection);
    }

    override handleDataRow(message: { fields: (string | null)[] }): void {
      if (this.progress.isDone) this.progress.after = message.fields[0] ?? null;
      else super.handleDataRow(message);
    }
  };
}

const prepared = new WeakMap<QueryConnection, Set<string>>();

function preparedOn(connection: QueryConnection): Set<string> {
  let names = prepared.get(connection);
  if (!names) prepared.set(connection, (names = new Set()));
  return names;
}

/** With a name, parsed until it has once been run: an error before it makes the server skip the Parse as well. */
function runPrepared(
  connection: QueryConnection,
  statement: Omit<PipelinedStatement, 'values'> & Partial<Pick<PipelinedStatement, 'values'>>,
): void {
  const { name, text, values } = statement;
  if (name === undefined) connection.parse({ text });
  else if (!preparedOn(connection).has(name)) {
    connection.close({ type: 'S', name });
    connection.parse({ name, text });
  }
  connection.bind({ ...(name !== undefined && { statement: name }), ...(values && { values }) });
  connection.execute({});
}

function run(connection: QueryConnection, first: string | PipelinedStatement): void {
  if (typeof first !== 'string') return runPrepared(connection, first);
  connection.parse({ text: first });
  connection.bind({});
  connection.execute({});
}
