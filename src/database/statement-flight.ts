import type { PoolClient, QueryConfig, QueryResult, QueryResultRow } from 'pg';

/** A statement that gives no rows, with its parameters as the server reads them. Without a name it is parsed each time. */
export interface Companion {
  name?: string | undefined;
  text: string;
  values: readonly (string | null)[];
}

/** Statements that travel with a statement, in one write and one answer. */
export interface Company {
  /** Run first; when one of them fails, nothing that stands behind it is run. Texts have no parameters. */
  before?: readonly (string | Companion)[];
  /** A query of one row and one column, run when the statement has succeeded. */
  after?: { name?: string | undefined; text: string };
}

/** What came back of a flight, also of one that failed: how far the server got. */
export interface Landing {
  /** How many of `before` are done. */
  beforeDone: number;
  /** The value that `after` gave; undefined when it was not run. */
  after: string | null | undefined;
}

// What a subclass of pg's Query may rely on (pg/lib/query.js, pg/lib/connection.js); pg-cursor and pg-query-stream use the same.
interface Connection {
  parse(message: { text: string; name?: string }): void;
  close(message: { type: 'S'; name: string }): void;
  bind(message: object): void;
  execute(message: { portal?: string }): void;
  sync(): void;
  /** Names whose Parse is on its way. */
  submittedNamedStatements?: Record<string, string>;
}
interface Query {
  callback: unknown;
  portal: string;
  prepare(connection: Connection): void;
  handleCommandComplete(message: object, connection: Connection): void;
  handleDataRow(message: { fields: (string | null)[] }): void;
  handleEmptyQuery(connection: Connection): void;
  handleError(error: Error, connection: Connection): void;
}
type Callback = (error: Error | null, result: QueryResult) => void;
type QueryClass = new (config: QueryConfig, values: undefined, callback: Callback) => Query;
type Flight = Query & { company: Company; landing: Landing };
type FlightClass = new (...parameters: ConstructorParameters<QueryClass>) => Flight;

/**
 * Sends a statement together with others, without waiting for the answers in between.
 *
 * pg's own pipeline mode ends each query with a Sync, and behind a Sync the server goes on after an error: a BEGIN that
 * fails would leave the statement behind it to run in a transaction of its own. Here one Sync stands at the end, so an
 * error skips the rest (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING).
 *
 * @param landing is filled in as the answers come, so that it tells how far the server got even when this rejects
 * @throws what pg throws
 */
export function sendTogether<Row extends QueryResultRow>(
  client: PoolClient,
  statement: QueryConfig,
  company: Company,
  landing: Landing,
): Promise<QueryResult<Row>> {
  return new Promise((resolve, reject) => {
    const Class = flightClassFor(client);
    const flight = new Class(
      { ...statement, queryMode: 'extended' } as QueryConfig,
      undefined,
      (error, result) => (error ? reject(error) : resolve(result as QueryResult<Row>)),
    );
    flight.company = company;
    flight.landing = landing;
    client.query(flight as never);
  });
}

/** What can't travel in company: several statements in one text, COPY and cursors, which speak for themselves. */
export function travelsAlone(statement: object): boolean {
  if ('submit' in statement || ('rows' in statement && statement.rows)) return true;
  const { text, values } = statement as QueryConfig;
  return !values?.length && (text === undefined || text.trimEnd().slice(0, -1).includes(';'));
}

export const newLanding = (): Landing => ({ beforeDone: 0, after: undefined });

const classes = new WeakMap<QueryClass, FlightClass>();

/** Of the pg that made the client: an application may have more than one, and each trusts its own class only. */
function flightClassFor(client: PoolClient): FlightClass {
  const base = (client.constructor as unknown as { Query: QueryClass }).Query;
  let flight = classes.get(base);
  if (!flight) classes.set(base, (flight = makeFlightClass(base)));
  return flight;
}

function makeFlightClass(Base: QueryClass): FlightClass {
  return class extends Base {
    company: Company = {};
    landing: Landing = newLanding();
    private sent = false;
    private done = false;
    private ownName: string | undefined;

    /**
     * pg takes each ParseComplete for the statement with this name. Those of `before` come first, and would make it believe
     * that the connection knows a name which the server may have skipped.
     */
    get name(): string | undefined {
      const ahead = this.sent && this.landing.beforeDone < (this.company.before?.length ?? 0);
      return ahead ? undefined : this.ownName;
    }
    set name(name: string | undefined) {
      this.ownName = name;
    }

    override prepare(connection: Connection): void {
      for (const first of this.company.before ?? []) run(connection, first);
      super.prepare(connection);
      this.sent = true;
    }

    /** pg's way to end `prepare`: the statement's Execute, then the Sync. */
    _getRows(connection: Connection): void {
      connection.execute({ portal: this.portal });
      const { after } = this.company;
      if (after) runPrepared(connection, after);
      connection.sync();
    }

    override handleCommandComplete(message: object, connection: Connection): void {
      const { after } = this.company;
      if (this.done && after?.name) preparedOn(connection).add(after.name);
      const first = this.company.before?.[this.landing.beforeDone];
      if (first !== undefined) {
        if (typeof first !== 'string' && first.name) preparedOn(connection).add(first.name);
        this.landing.beforeDone++;
      } else if (!this.done) {
        this.done = true;
        super.handleCommandComplete(message, connection);
      }
    }

    /** pg has noted the name when it sent the Parse, and asks `name`, which is hidden then, to forget it. */
    override handleError(error: Error, connection: Connection): void {
      if (this.ownName) delete connection.submittedNamedStatements?.[this.ownName];
      super.handleError(error, connection);
    }

    override handleEmptyQuery(connection: Connection): void {
      this.done = true;
      super.handleEmptyQuery(connection);
    }

    override handleDataRow(message: { fields: (string | null)[] }): void {
      if (this.done) this.landing.after = message.fields[0] ?? null;
      else super.handleDataRow(message);
    }
  };
}

const prepared = new WeakMap<Connection, Set<string>>();

function preparedOn(connection: Connection): Set<string> {
  let names = prepared.get(connection);
  if (!names) prepared.set(connection, (names = new Set()));
  return names;
}

/** With a name, parsed until it has once been run: an error before it makes the server skip the Parse as well. */
function runPrepared(
  connection: Connection,
  statement: Omit<Companion, 'values'> & Partial<Pick<Companion, 'values'>>,
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

function run(connection: Connection, first: string | Companion): void {
  if (typeof first !== 'string') return runPrepared(connection, first);
  connection.parse({ text: first });
  connection.bind({});
  connection.execute({});
}
