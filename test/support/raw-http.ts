import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** A client that sends what it is told to, HTTP or not, and keeps what comes back. */
export class RawClient {
  received = '';
  /** Resolves when the server has ended the connection, however; whether the end was clean. */
  readonly ended: Promise<'end' | 'reset'>;

  constructor(readonly socket: Socket) {
    socket.on('data', (data: Buffer) => (this.received += data.toString('latin1')));
    let wasReset = false;
    socket.on('error', () => (wasReset = true));
    this.ended = new Promise((resolve) => socket.once('close', () => resolve(wasReset ? 'reset' : 'end')));
  }

  /** @param allowHalfOpen true: goes on sending when the server has ended its side */
  static async connect(url: string, { allowHalfOpen = false } = {}): Promise<RawClient> {
    const { port, hostname } = new URL(url);
    const socket = connect({ port: Number(port), host: hostname.replace(/[[\]]/g, ''), allowHalfOpen });
    await once(socket, 'connect');
    return new RawClient(socket);
  }

  send(text: string | Uint8Array): this {
    this.socket.write(typeof text === 'string' ? Buffer.from(text, 'latin1') : text);
    return this;
  }

  /** Waits until `text` has come. */
  async receives(text: string): Promise<void> {
    while (!this.received.includes(text)) {
      if (this.socket.destroyed)
        throw new Error(`The connection has ended without "${text}": ${this.received}`);
      await Promise.race([once(this.socket, 'data').catch(() => undefined), this.ended]);
    }
  }

  /** The status codes of what has come. */
  get statuses(): number[] {
    return [...this.received.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
  }
}

/** What comes back for these bytes, once the server has ended the connection. */
export async function answersTo(url: string, bytes: string | Uint8Array): Promise<RawClient> {
  const client = await RawClient.connect(url);
  client.send(bytes);
  await client.ended;
  return client;
}
