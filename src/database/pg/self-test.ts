import { EventEmitter } from 'node:events';
import { noProgress, pipelinedQuery, type QueryClass, type QueryConnection } from './pipelined-query.js';

/** As in package.json's peerDependencies; a test compares them. */
const SUPPORTED_PG = '^8.23.1';

type ClientClass = (new (config: object) => Record<string, unknown>) & { Query?: QueryClass };

/**
 * Looks whether the pg that makes a pool's clients has what `internals` and `pipelined-query` lean on, without connecting: better
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

const METHODS_OF_A_CLIENT = ['connect', 'query', 'end', 'getTransactionStatus', '_getActiveQuery'];
const METHODS_OF_A_CONNECTION = ['connect', 'parse', 'close', 'bind', 'execute', 'sync', 'prependListener'];
const METHODS_OF_A_QUERY = [
  'prepare',
  'submit',
  'handleCommandComplete',
  'handleDataRow',
  'handleEmptyQuery',
  'handleError',
  'handleReadyForQuery',
];

function missingOf(Client: ClientClass | undefined): string[] {
  if (typeof Client !== 'function') return ['Client'];
  const client = new Client({});
  const { Query } = Client;
  const lacking = (of: string, thing: unknown, names: readonly string[]) =>
    names.filter((name) => typeof propertyOf(thing, name) !== 'function').map((name) => `${of}.${name}()`);
  const missing = [
    ...lacking('Client', client, METHODS_OF_A_CLIENT),
    ...Object.entries(STATE_OF_A_CLIENT)
      .filter(([name, isRight]) => !isRight(client[name]))
      .map(([name]) => `Client.${name}`),
    ...lacking('Connection', client.connection, METHODS_OF_A_CONNECTION),
    ...['parsedStatements', 'submittedNamedStatements']
      .filter((name) => !isObject(propertyOf(client.connection, name)))
      .map((name) => `Connection.${name}`),
    ...lacking('Connection.stream', propertyOf(client.connection, 'stream'), ['destroy', 'cork', 'uncork']),
    ...lacking('Query', Query?.prototype, METHODS_OF_A_QUERY),
  ];
  if (missing.length > 0) return missing;
  return rehearses(Query!) ? [] : ['a Query whose messages can be sent with those of others'];
}

const isObject = (value: unknown) => typeof value === 'object' && value !== null;
const propertyOf = (thing: unknown, name: string): unknown =>
  (Object(thing) as Record<string, unknown>)[name];

/** Of one that has not connected yet. */
const STATE_OF_A_CLIENT: Record<string, (value: unknown) => boolean> = {
  connection: (value) => value instanceof EventEmitter,
  connectionParameters: isObject,
  host: (value) => typeof value === 'string',
  port: (value) => typeof value === 'number',
  processID: (value) => value === null,
  secretKey: (value) => value === null,
  pipeline: (value) => value === false,
  _queryable: (value) => value === true,
  _ending: (value) => value === false,
  _ended: (value) => value === false,
};

const SENT = [
  ...['parse BEGIN', 'bind', 'execute'],
  ...['parse SELECT $1', 'bind', 'describe', 'execute'],
  ...['parse SELECT 2', 'bind', 'execute'],
  'sync',
].join();

/** Sends a statement with one before and one behind it to nobody, and answers it as a server would. */
function rehearses(Query: QueryClass): boolean {
  const sent: string[] = [];
  const note = (message: string) => (content?: { text?: string }) =>
    void sent.push(content?.text === undefined ? message : `${message} ${content.text}`);
  const messages = ['parse', 'bind', 'describe', 'execute', 'close', 'sync', 'flush', 'query'];
  const connection = {
    stream: {},
    parsedStatements: {},
    submittedNamedStatements: {},
    ...Object.fromEntries(messages.map((message) => [message, note(message)])),
  } as unknown as QueryConnection;
  const progress = noProgress();
  let command: string | undefined;
  try {
    const query = pipelinedQuery(
      Query,
      { name: 'rehearsal', text: 'SELECT $1', values: ['1'] },
      { before: ['BEGIN'], after: { text: 'SELECT 2' } },
      progress,
      (error, result) => (command = error ? undefined : result.command),
    ) as ReturnType<typeof pipelinedQuery> & {
      name?: string;
      submit(connection: QueryConnection): Error | null;
      handleReadyForQuery(connection: QueryConnection): void;
    };
    if (query.submit(connection) !== null) return false;
    const isNameHidden = query.name === undefined;
    query.handleCommandComplete({ text: 'BEGIN' }, connection);
    const isNameShown = query.name === 'rehearsal';
    query.handleCommandComplete({ text: 'SELECT 0' }, connection);
    query.handleDataRow({ fields: ['2'] });
    query.handleCommandComplete({ text: 'SELECT 1' }, connection);
    query.handleReadyForQuery(connection);
    const isAnswered = command === 'SELECT' && progress.beforeDone === 1 && progress.after === '2';
    return sent.join() === SENT && isNameHidden && isNameShown && isAnswered;
  } catch {
    return false;
  }
}
