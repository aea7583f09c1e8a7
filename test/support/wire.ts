import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/**
 * What becomes of a piece: `cut` lets it not through and ends the connection, `hold` keeps it and what follows until `release`,
 * `lose` lets it through and ends the connection in place of the answer.
 */
export type Verdict = 'pass' | 'cut' | 'hold' | 'lose';

/** Sees what one connection carries, before it goes on. */
export interface Watcher {
  request(piece: Buffer): Verdict;
  /** Gives the piece as it is to go on. */
  response(piece: Buffer): Buffer;
  /** What the client is told in place of an answer that is lost. Left out: nothing. */
  lastWords?: () => Buffer | undefined;
}

export interface WireSettings {
  /** The server's port on this machine. */
  target: number;
  /** Called for each connection. */
  watch: () => Watcher;
  /** Cuts what has come so far into pieces. Left out: as the network brings it. */
  split?: (data: Buffer) => { pieces: Buffer[]; rest: Buffer };
}

/** A stretch of network between a client and a server on which somebody watches. */
export interface Wire {
  readonly port: number;
  /** Lets through what is held. */
  release(): void;
  close(): Promise<void>;
}

const NOTHING: Buffer = Buffer.alloc(0);
const asItComes = (data: Buffer) => ({ pieces: [data], rest: NOTHING });

export async function startWire({ target, watch, split = asItComes }: WireSettings): Promise<Wire> {
  const sockets = new Set<Socket>();
  let held: (() => void)[] = [];
  const server = createServer((client) => {
    const upstream = connect(target, '127.0.0.1');
    const watcher = watch();
    const cut = () => [client, upstream].forEach((end) => end.destroy());
    for (const end of [client, upstream]) {
      sockets.add(end.setNoDelay());
      end.on('error', () => undefined).on('close', () => (sockets.delete(end), cut()));
    }
    let waiting: Buffer[] | undefined;
    let isLosing = false;
    const forward = (pieces: Buffer[]) => {
      for (const [index, piece] of pieces.entries()) {
        if (client.destroyed) return;
        const verdict = watcher.request(piece);
        if (verdict === 'cut') return cut();
        isLosing ||= verdict === 'lose';
        if (verdict === 'hold') return hold(piece, pieces.slice(index + 1));
        upstream.write(piece);
      }
    };
    const hold = (piece: Buffer, behind: Buffer[]) => {
      waiting = behind;
      held.push(() => {
        if (!upstream.destroyed) upstream.write(piece);
        waiting = undefined;
        forward(behind);
      });
    };
    inPieces(client, split, (pieces) => (waiting ? waiting.push(...pieces) : forward(pieces)));
    inPieces(upstream, split, (pieces) => {
      if (isLosing) return client.writable && client.end(watcher.lastWords?.() ?? NOTHING);
      for (const piece of pieces) if (client.writable) client.write(watcher.response(piece));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    release: () => {
      const letGo = held;
      held = [];
      for (const go of letGo) go();
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function inPieces(
  from: Socket,
  split: NonNullable<WireSettings['split']>,
  take: (pieces: Buffer[]) => void,
): void {
  let rest = NOTHING;
  from.on('data', (data: Buffer) => {
    const parts = split(rest.length > 0 ? Buffer.concat([rest, data]) : data);
    rest = parts.rest;
    take(parts.pieces);
  });
}
