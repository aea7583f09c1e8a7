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

/** A connection and how its reader keeps up. */
interface Reader {
  /** What the system had taken of the answers when it was last looked at. */
  taken: number;
  /** How much longer the reader may lag, in ms. */
  credit: number;
}

/** Holds the connections of several servers to bounds together. */
export class HttpPace {
  private readonly readers = new Map<Socket, Reader>();
  /** Those without a request, the longest idle first. */
  private readonly idle = new Set<Socket>();

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
    this.idle.delete(socket);
    if (!busy && !socket.destroyed) this.idle.add(socket);
  }

  private admit(socket: Socket): void {
    if (this.readers.size >= this.bounds.maxConnections) {
      const [longestIdle = socket] = this.idle;
      longestIdle.destroy();
      this.forget(longestIdle);
      if (longestIdle === socket) return;
    }
    this.readers.set(socket, { taken: 0, credit: this.bounds.answerGraceMs });
    this.idle.add(socket);
    socket.once('close', () => this.forget(socket));
  }

  private forget(socket: Socket): void {
    this.readers.delete(socket);
    this.idle.delete(socket);
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
