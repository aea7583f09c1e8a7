import pg, { type Client, type ClientConfig } from 'pg';
import type { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import { destroy, findHost } from './search.js';

type Connected = (error: Error | null, client?: Client) => void;

/** What pg's clients have beside their types. */
interface Internals {
  connection: EventEmitter & { stream: Duplex; connect?: (() => void) | undefined };
  processID: number | null;
  secretKey: unknown;
  host: string;
  port: number;
}
const internalsOf = (client: Client) => client as unknown as Internals;

/**
 * A class of clients, to be the `Client` of a pool's options, that connect to whichever of several hosts takes writes. The pool sees
 * one client: the connection that was found becomes its own.
 *
 * @param urls of the hosts; the one that was last found is asked first, then the others in this order
 */
export function writableClient(urls: readonly string[]): typeof Client {
  let last = urls[0]!;

  return class WritableClient extends pg.Client {
    readonly #settings: ClientConfig;

    constructor(config?: string | ClientConfig) {
      const settings = typeof config === 'object' ? config : {};
      super({ ...settings, connectionString: last });
      this.#settings = settings;
    }

    override connect(): Promise<Client>;
    override connect(callback: Connected): void;
    override connect(callback?: Connected): Promise<Client> | void {
      const connecting = this.find();
      if (!callback) return connecting;
      connecting.then(
        () => callback(null, this),
        (error: unknown) => callback(error as Error),
      );
    }

    private async find(): Promise<Client> {
      const givenUp = new AbortController();
      const { stream } = internalsOf(this).connection;
      const onClose = () => givenUp.abort();
      // Whoever gives up a client that connects (the pool in time, a caller) cuts the connection that it sees.
      stream.once('close', onClose);
      const found = await findHost({
        urls: [last, ...urls.filter((url) => url !== last)],
        config: this.#settings,
        timeoutMs: this.#settings.connectionTimeoutMillis ?? 0,
        signal: givenUp.signal,
      }).finally(() => stream.off('close', onClose));
      if (stream.destroyed) {
        destroy(found.client);
        throw new Error('Given up while a host was found that takes writes.');
      }
      last = found.url;
      this.takeOver(found.client);
      return this;
    }

    /** From here on the connection of `client` is this one's; `client` is nobody's any more. */
    private takeOver(client: Client): void {
      const mine = internalsOf(this);
      const { connection, processID, secretKey, host, port } = internalsOf(client);
      for (const event of messagesOf(connection)) connection.removeAllListeners(event);
      for (const event of messagesOf(mine.connection))
        for (const listener of mine.connection.rawListeners(event))
          connection.on(event, listener as (...args: unknown[]) => void);
      Object.assign(mine, { connection, processID, secretKey, host, port });
      // It stands, and pg has yet to learn of it: as if it had connected just now.
      connection.connect = () => undefined;
      super.connect(() => undefined);
      delete connection.connect;
      connection.emit('readyForQuery', { status: 'I' });
    }
  };
}

/** pg's connections listen to who listens to them, each for itself. */
const messagesOf = (connection: EventEmitter) =>
  connection.eventNames().filter((event) => event !== 'newListener');
