import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** An NDJSON upload on a socket of its own, which sends what it is told when it is told. */
export class SlowUpload {
  readonly socket: Socket;
  private received = '';
  private readonly ended: Promise<unknown>;

  constructor(url: string, path = '/people/bulk') {
    const { port, hostname } = new URL(url);
    this.socket = connect(Number(port), hostname);
    this.socket.setEncoding('utf8').on('data', (text: string) => (this.received += text));
    this.socket.on('error', () => undefined);
    this.ended = once(this.socket, 'close').catch(() => undefined);
    this.socket.write(
      `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
  }

  /** Sends a chunk of the body. */
  send(text: string): this {
    this.socket.write(`${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`);
    return this;
  }

  /** Sends `text` again and again until there is an answer, or `times` are over. */
  async keepSending(text: string, everyMs: number, times = Infinity): Promise<this> {
    for (let i = 0; i < times && !this.received && !this.socket.destroyed; i++) {
      this.send(text);
      await sleep(everyMs);
    }
    return this;
  }

  /** Ends the body. */
  end(): this {
    this.socket.write('0\r\n\r\n');
    return this;
  }

  /** The sender dies. */
  die(): void {
    this.socket.resetAndDestroy();
  }

  /** What was answered: waits for the status and headers, and for the body as `content-length` has it. */
  async answer(): Promise<{ status: number; headers: string; body: unknown }> {
    while (!this.isWhole() && !this.socket.destroyed)
      await Promise.race([once(this.socket, 'data'), this.ended]);
    const [head = '', body = ''] = this.received.split('\r\n\r\n');
    return {
      status: Number(/^HTTP\/1.1 (\d+)/.exec(head)?.[1]),
      headers: head.toLowerCase(),
      body: body === '' ? undefined : (JSON.parse(body) as unknown),
    };
  }

  private isWhole(): boolean {
    const [head, body = ''] = this.received.split('\r\n\r\n');
    const length = /content-length: (\d+)/i.exec(head ?? '')?.[1];
    return length !== undefined && Buffer.byteLength(body) >= Number(length);
  }
}
