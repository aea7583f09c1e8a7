import type { Server } from 'node:http';
import type { Socket } from 'node:net';

/** What connections may take of a server in places and in time. */
export interface PaceBounds {
  /** Connections at most; where there are more, the one that has been idle longest is ended. */
  maxConnections: number;
  /** What the reader of an answer has to take a second while bytes wait for it; 0 = nothing. */
  minAnswerBytesPerSecond: number;
  /** How far it may lag behind that. */
  answerGraceMs: number;
}

const LOOK_EVERY_MS = 1000;

/** A connection, how its reader keeps up, and its neighbours among those without a request. */
interface Reader {
  readonly socket: Socket;
  /** What the system had taken of the answers when it was last looked at. */
  taken: number;
  /** How much longer the reader may lag, in ms. */
  credit: number;
  /** The one that has been idle for longer than this. */
  idler: Reader | undefined;
  /** The one that has been so for less long. */
  busier: Reader | undefined;
}

/** Holds the connections of several servers to bounds together. */
export class HttpPace {
  private readonly readers = new Map<Socket, Reader>();
  /**
   * Those without a request are linked. A Set would be made anew with each request, and each of them would live until a full
   * garbage collection.
   */
  private longestIdle: Reader | undefined;
  private lastIdle: Reader | undefined;

  constructor(private readonly bounds: PaceBounds) {}

  /** Connections that are open. */
  get connections(): number {
    return this.readers.size;
  }

  watch(server: Server): void {
    server.on('connection', (socket: Socket) => this.admit(socket));
    const looking = setInterval(() => this.look(), LOOK_EVERY_MS).unref();
    server.once('close', () => clearInterval(looking));
  }

  /** A request of this connection is under way, or none is any more. */
  isBusy(socket: Socket, busy: boolean): void {
    const reader = this.readers.get(socket);
    if (!reader) return;
    this.unlink(reader);
    if (!busy && !socket.destroyed) this.link(reader);
  }

  private admit(socket: Socket): void {
    if (this.readers.size >= this.bounds.maxConnections) {
      if (!this.longestIdle) {
        socket.destroy();
        return;
      }
      this.longestIdle.socket.destroy();
      this.forget(this.longestIdle);
    }
    const reader = {
      socket,
      taken: 0,
      credit: this.bounds.answerGraceMs,
      idler: undefined,
      busier: undefined,
    };
    this.readers.set(socket, reader);
    this.link(reader);
    socket.once('close', () => this.forget(reader));
  }

  private forget(reader: Reader): void {
    this.readers.delete(reader.socket);
    this.unlink(reader);
  }

  /** As the one that has been idle for the shortest time. */
  private link(reader: Reader): void {
    reader.idler = this.lastIdle;
    if (this.lastIdle) this.lastIdle.busier = reader;
    else this.longestIdle = reader;
    this.lastIdle = reader;
  }

  private unlink(reader: Reader): void {
    const { idler, busier } = reader;
    if (idler) idler.busier = busier;
    else if (this.longestIdle === reader) this.longestIdle = busier;
    if (busier) busier.idler = idler;
    else if (this.lastIdle === reader) this.lastIdle = idler;
    reader.idler = reader.busier = undefined;
  }

  private look(): void {
    const { minAnswerBytesPerSecond: rate, answerGraceMs } = this.bounds;
    if (rate === 0) return;
    for (const [socket, reader] of this.readers) {
      if (socket.writableLength === 0) {
        reader.credit = answerGraceMs;
        continue;
      }
      const taken = takenBySystem(socket);
      const earned = ((taken - reader.taken) * 1000) / rate;
      reader.taken = taken;
      reader.credit = Math.min(answerGraceMs, reader.credit - LOOK_EVERY_MS + earned);
      if (reader.credit < 0) socket.destroy();
    }
  }
}

/**
 * Bytes of a socket that the system has taken, and so the client but for the system's buffer. A large answer is one write, of
 * which Node tells nothing before its end; only the handle knows what of it is still here.
 */
function takenBySystem(socket: Socket): number {
  const { _handle: handle } = socket as unknown as {
    _handle: { bytesWritten: number; writeQueueSize: number } | null;
  };
  return handle ? handle.bytesWritten - handle.writeQueueSize : socket.bytesWritten;
}
