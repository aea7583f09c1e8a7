import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { finished } from 'node:stream';

/** What is to be done when a connection ends: one listener for however many answers wait on it. */
const onEnd = new WeakMap<Socket, Set<() => void>>();

/** Calls `done` once: when a response of Express or Fastify is sent, or nobody is there to read it. */
export function whenOver(response: unknown, done: () => void): void {
  const { raw = response } = response as { raw?: unknown };
  const { req } = raw as ServerResponse;
  // An answer that waits behind others of its connection is not told when that ends.
  const waiting = listenersOf(req.socket);
  const end = () => {
    if (waiting.delete(end)) done();
  };
  waiting.add(end);
  finished(raw as ServerResponse, end);
  if (req.socket.destroyed) end();
}

function listenersOf(socket: Socket): Set<() => void> {
  let listeners = onEnd.get(socket);
  if (!listeners) {
    const added = new Set<() => void>();
    onEnd.set(socket, (listeners = added));
    socket.once('close', () => added.forEach((end) => end()));
  }
  return listeners;
}
