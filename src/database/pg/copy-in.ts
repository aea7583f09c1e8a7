import type { PoolClient } from 'pg';
import type { Duplex } from 'node:stream';

// What a query of its own kind may rely on (pg/lib/client.js, pg/lib/connection.js); pg-copy-streams uses the same.
interface CopyConnection {
  readonly stream: Duplex;
  query(text: string): void;
}

/** The server takes what is in a message once it has the whole. */
const MESSAGE_BYTES = 64 * 1024;
const COPY_DATA = 0x64;
/** Without a body: the message's letter, and its length. */
const COPY_DONE = Buffer.from([0x63, 0, 0, 0, 4]);

/**
 * Runs a COPY FROM STDIN whose rows are all there, in one way there and back: they are sent with it, before the server has asked
 * for them. One that refuses the COPY passes by what comes of it
 * (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY).
 *
 * @param rows as the server reads them; not to be changed until it has answered
 * @returns the number of rows
 * @throws what pg throws
 */
export function copyIn(client: PoolClient, text: string, rows: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    const copy = new CopyIn(text, rows, (error, count) => (error ? reject(error) : resolve(count)));
    client.query(copy as never);
  });
}

/** What pg takes in place of a Query. */
class CopyIn {
  private count = 0;
  /** pg puts its `query_timeout` around it. */
  callback: (error: Error | null, count: number) => void;

  constructor(
    private readonly text: string,
    private readonly rows: Buffer,
    callback: (error: Error | null, count: number) => void,
  ) {
    this.callback = callback;
  }

  submit(connection: CopyConnection): void {
    const { stream } = connection;
    // Of one that is at its end the client will tell.
    if (!stream.writable) return;
    // In one write, as far as the system takes it.
    stream.cork();
    connection.query(this.text);
    for (let start = 0; start < this.rows.length; start += MESSAGE_BYTES) {
      const part = this.rows.subarray(start, start + MESSAGE_BYTES);
      const head = Buffer.allocUnsafe(5);
      head[0] = COPY_DATA;
      head.writeUInt32BE(part.length + 4, 1);
      stream.write(head);
      stream.write(part);
    }
    stream.write(COPY_DONE);
    stream.uncork();
  }

  handleCopyInResponse(): void {
    // What it asks for is on its way.
  }

  handleCommandComplete({ text }: { text: string }): void {
    this.count = Number(/^COPY (\d+)/.exec(text)?.[1] ?? 0);
  }

  handleError(error: Error): void {
    this.callback(error, 0);
  }

  handleReadyForQuery(): void {
    this.callback(null, this.count);
  }
}
