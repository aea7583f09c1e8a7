import pg, { type Client, type ClientConfig } from 'pg';
import { connectionOf, cutConnectionOf, takeOverConnection } from '../pg/internals.js';
import { findHost } from './search.js';

type Connected = (error: Error | null, client?: Client) => void;

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
      const { stream } = connectionOf(this);
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
        cutConnectionOf(found.client);
        throw new Error('Given up while a host was found that takes writes.');
      }
      last = found.url;
      takeOverConnection(this, found.client, () => super.connect(() => undefined));
      return this;
    }
  };
}
