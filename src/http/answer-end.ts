import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { finished } from 'node:stream';

/** What is to be done when a connection ends: one listener for however many answers wait on it. */
const onEnd = new WeakMap<Socket, Set<() => void>>();

/** Calls `done` once: when a response of Express or Fastify is sent, or nobody is there to read it. */
export function whenOver(response: unknown, done: () => void): void {
  const { raw = response } = response as { raw?: unknown };
  const answer = raw as ServerResponse;
  const { req } = answer;
  // An answer that waits behind others of its connection is not told when that ends.
  const waiting = listenersOf(req.socket);
  const end = () => {
    if (waiting.delete(end)) done();
  };
  waiting.add(end);
  // It listens twice. With Nest's and Fastify's own a stream has ten listeners, from where Node warns of a leak.
  const most = answer.getMaxListeners();
  if (most > 0) answer.setMaxListeners(most + 2);
  finished(answer, end);
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
