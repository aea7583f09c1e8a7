import { noProgress, pipelinedQuery, type QueryClass, type QueryConnection } from './pipelined-query.js';

/** As in package.json's peerDependencies; a test compares them. */
const SUPPORTED_PG = '^8.21.0';

type ClientClass = (new (config: object) => object) & { Query?: QueryClass & { prototype: object } };

/**
 * Looks whether the pg that makes a pool's clients has what `internals`, `pipelined-query`, `statement-query` and `copy-in` lean on, without connecting: better
 * at start than in the middle of a transaction.
 *
 * @param pg itself, or a pool: what has the class of the clients
 * @throws Error naming what is missing
 */
export function assertPgInternals(pg: object): void {
  const missing = missingOf((pg as { Client?: ClientClass }).Client);
  if (missing.length === 0) return;
  throw new Error(
    `This pg is none that nestjs-people can work with: it lacks ${missing.join(', ')}. ` +
      `Supported is pg ${SUPPORTED_PG}: install such a version (npm install pg@${SUPPORTED_PG}), without pg-native; if yours is one, please report it.`,
  );
}

/** By the types that they have before a client connects. */
const PARTS: Record<string, readonly string[]> = {
  function: [
    ...['connect', 'query', 'end', 'getTransactionStatus', '_getActiveQuery'].map((name) => `Client.${name}`),
    ...['connect', 'prependListener', 'parse', 'close', 'bind', 'execute', 'sync', 'query'].map(
      (name) => `Client.connection.${name}`,
    ),
    ...['destroy', 'cork', 'uncork', 'write'].map((name) => `Client.connection.stream.${name}`),
    ...['prepare', 'submit', 'handleEmptyQuery', 'handleError'].map((name) => `Query.${name}`),
    ...['handleCommandComplete', 'handleDataRow', 'handleReadyForQuery'].map((name) => `Query.${name}`),
  ],
  object: [
    ...['connectionParameters', 'processID', 'secretKey'].map((name) => `Client.${name}`),
    'Client.connection.parsedStatements',
  ],
  boolean: ['_queryable', '_ending', '_ended'].map((name) => `Client.${name}`),
  string: ['Client.host'],
  number: ['Client.port'],
};

function missingOf(Client: ClientClass | undefined): string[] {
  if (typeof Client !== 'function') return ['Client'];
  const found: unknown = { Client: new Client({}), Query: Client.Query?.prototype };
  const partAt = (path: string) =>
    path.split('.').reduce((thing, name) => (Object(thing) as Record<string, unknown>)[name], found);
  const missing = Object.entries(PARTS).flatMap(([type, paths]) =>
    paths.filter((path) => typeof partAt(path) !== type),
  );
  if (missing.length > 0) return missing;
  return isPipelined(Client.Query!) ? [] : ['a Query whose messages can be sent with those of others'];
}

const SENT = [
  ...['parse BEGIN', 'bind', 'execute'],
  ...['parse SELECT $1', 'bind', 'describe', 'execute'],
  ...['parse SELECT 2', 'bind', 'execute'],
  ...['parse COMMIT', 'bind', 'execute'],
  'sync',
].join();

/** Sends a statement with one before and two behind it to nobody, and answers it as a server would. */
function isPipelined(Query: QueryClass): boolean {
  const sent: string[] = [];
  const messages = ['parse', 'bind', 'describe', 'execute', 'close', 'sync', 'flush', 'query'];
  const connection = {
    stream: {},
    parsedStatements: {},
    submittedNamedStatements: {},
    ...Object.fromEntries(
      messages.map((message) => [
        message,
        ({ text }: { text?: string } = {}) => sent.push(text === undefined ? message : `${message} ${text}`),
      ]),
    ),
  } as unknown as QueryConnection;
  const progress = noProgress();
  let command: string | undefined;
  try {
    const query = pipelinedQuery(
      Query,
      { name: 'rehearsal', text: 'SELECT $1', values: ['1'] },
      { before: ['BEGIN'], after: { text: 'SELECT 2' }, last: 'COMMIT' },
      progress,
      (error, result) => (command = error ? undefined : result.command),
    );
    if (query.submit(connection) !== null) return false;
    const isNameHidden = query.name === undefined;
    query.handleCommandComplete({ text: 'BEGIN' }, connection);
    const isNameShown = query.name === 'rehearsal';
    query.handleCommandComplete({ text: 'SELECT 0' }, connection);
    query.handleDataRow({ fields: ['2'] });
    query.handleCommandComplete({ text: 'SELECT 1' }, connection);
    query.handleCommandComplete({ text: 'COMMIT' }, connection);
    query.handleReadyForQuery(connection);
    const isAnswered = command === 'SELECT' && progress.beforeDone === 1 && progress.after === '2';
    const isEnded = progress.isDone && progress.lastCommand === 'COMMIT';
    return sent.join() === SENT && isNameHidden && isNameShown && isAnswered && isEnded;
  } catch {
    return false;
  }
}
