import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** Longer than the service lets a reader lag. */
const READER_STAYS_MS = 45_000;

/** One who keeps a connection and does no good with it; called anew for each. */
export type Misuse = (socket: Socket) => void;

/** So many connections to one server, each misused: whoever is thrown out comes again. */
export class Crowd {
  private readonly sockets = new Set<Socket>();
  private hasGone = false;
  /** How often a connection has ended, mostly by the server, or was refused. */
  ended = 0;

  private constructor(
    private readonly port: number,
    private readonly misuses: readonly Misuse[],
  ) {}

  /** Its members come a few at a time, as a server takes only so many at once. */
  static async gather(port: number, size: number, misuses: readonly Misuse[]): Promise<Crowd> {
    const crowd = new Crowd(port, misuses);
    for (let member = 0; member < size; member++) {
      crowd.join(member);
      if (member % 50 === 49) await sleep(20);
    }
    return crowd;
  }

  get size(): number {
    return this.sockets.size;
  }

  leave(): void {
    this.hasGone = true;
    for (const socket of this.sockets) socket.destroy();
  }

  private join(member: number): void {
    const socket = connect(this.port, '127.0.0.1');
    this.sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('connect', () => this.misuses[member % this.misuses.length]!(socket));
    socket.on('close', () => {
      this.sockets.delete(socket);
      if (this.hasGone) return;
      this.ended++;
      setTimeout(() => !this.hasGone && this.join(member), 500);
    });
  }
}

const head = (method: string, path: string, ...headers: string[]) =>
  [`${method} ${path} HTTP/1.1`, 'Host: localhost', ...headers, '', ''].join('\r\n');
const JSON_TYPE = 'Content-Type: application/json';
const NDJSON_TYPE = 'Content-Type: application/x-ndjson';
const CHUNKED = 'Transfer-Encoding: chunked';
const chunk = (text: string) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;

/** Sends `part` again and again, until the connection ends. */
function drip(socket: Socket, part: string, everyMs: number): void {
  const timer = setInterval(() => socket.write(part), everyMs);
  socket.once('close', () => clearInterval(timer));
}

/** Bodies, and headers, that come a byte a second, or stop. */
export const SLOW_UPLOADS: readonly Misuse[] = [
  (socket) => {
    socket.resume().write(head('POST', '/people', JSON_TYPE, CHUNKED));
    drip(socket, chunk(' '), 1000);
  },
  (socket) => {
    socket.resume().write(head('POST', '/people', JSON_TYPE, 'Content-Length: 1000000'));
    socket.write(' '.repeat(500_000));
  },
  (socket) => {
    socket.resume().write(head('POST', '/people/bulk', NDJSON_TYPE, CHUNKED));
    socket.write(chunk('{"name":"upload"}\n'));
  },
  (socket) => {
    socket.resume().write(head('POST', '/people/bulk', NDJSON_TYPE, CHUNKED));
    drip(socket, chunk(' '), 1000);
  },
  (socket) => {
    socket.resume().write(head('POST', '/people/bulk', JSON_TYPE, 'Content-Length: 16000000'));
    socket.write('['.padEnd(1_000_000));
  },
  (socket) => {
    socket.resume().write('GET /people HTTP/1.1\r\nHost: localhost\r\nX-Slow: ');
    drip(socket, 'x', 1000);
  },
];

/** Answers that nobody reads, or a little at a time: of a page, and of an export. */
export const slowReads = (name: string): readonly Misuse[] =>
  ['application/json', 'application/x-ndjson'].flatMap((accept) => {
    const request = head('GET', `/people?name=${name}&limit=1000`, `Accept: ${accept}`);
    const exported = head('GET', `/people?name=${name}`, `Accept: ${accept}`);
    const text = accept === 'application/json' ? request : exported;
    return [
      (socket: Socket) => {
        socket.pause().write(text);
        leaveAfterwards(socket);
      },
      (socket: Socket) => {
        socket.pause().write(text);
        const timer = setInterval(() => socket.read(1), 1000);
        socket.once('close', () => clearInterval(timer));
        leaveAfterwards(socket);
      },
    ];
  });

/** Who does not read never learns that the server has cut the connection, and would trouble nobody from then on. */
function leaveAfterwards(socket: Socket): void {
  const timer = setTimeout(() => socket.destroy(), READER_STAYS_MS);
  socket.once('close', () => clearTimeout(timer));
}

/** Connections that never say anything, and such that were of use once. */
export const IDLE: readonly Misuse[] = [
  (socket) => void socket.resume(),
  (socket) => void socket.resume().write(head('GET', '/health/live')),
];
