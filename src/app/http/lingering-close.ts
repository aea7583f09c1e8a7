import type { Socket } from 'node:net';

/** How much more of what a client is sending is read away before its connection is closed, and for how long. */
export interface LingerBounds {
  lingerBytes: number;
  lingerMs: number;
}

/**
 * Has `socket` closed so that its last answer arrives: closing a connection on which the client still sends resets it, and
 * the client never reads what it was answered. So this side ends first, and what comes meanwhile is read away, up to a bound.
 */
export function lingerOnClose(socket: Socket, bounds: LingerBounds): void {
  // Node's HTTP server ends a connection by this alone once its last answer is written.
  socket.destroySoon = () => linger(socket, bounds);
}

function linger(socket: Socket, { lingerBytes, lingerMs }: LingerBounds): void {
  if (socket.destroyed) return;
  let left = lingerBytes;
  // From here on nothing that comes is a request.
  socket.removeAllListeners('data');
  socket.on('data', ({ length }: Buffer) => {
    left -= length;
    if (left < 0) socket.destroy();
  });
  const timer = setTimeout(() => socket.destroy(), lingerMs);
  socket.once('close', () => clearTimeout(timer));
  // Both sides ended, the socket destroys itself.
  socket.end();
  socket.resume();
  // Where a body was held back the parser has stopped the handle, and the socket does not start it again.
  const { _handle: handle } = socket as unknown as {
    _handle: { reading: boolean; readStart(): void } | null;
  };
  if (!handle) return;
  handle.reading = true;
  handle.readStart();
}
