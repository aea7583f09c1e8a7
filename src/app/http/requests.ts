import type { Server } from 'node:http';

/** The requests of a server that stops. */
export interface HttpRequests {
  /** Requests whose answer is under way. */
  readonly running: number;
  /** Once the server takes no more, ends the connections of nobody: those that are kept alive, or never asked anything. */
  endIdle(): void;
  /** Ends all connections. @returns how many requests that has cut */
  cut(): number;
}

/** Counts what `server` is asked from now on. */
export function watchRequests(server: Server): HttpRequests {
  let running = 0;
  let cut = 0;
  server.on('request', (_request, response) => {
    running++;
    response.on('close', () => running--);
  });
  return {
    get running() {
      return running;
    },
    // Node's closeIdleConnections leaves out those that have never asked.
    endIdle: () => {
      if (!server.listening && running === 0) server.closeAllConnections();
    },
    cut: () => {
      // Those that are ended already close a little later, and count once.
      const more = Math.max(0, running - cut);
      cut += more;
      server.closeAllConnections();
      return more;
    },
  };
}
