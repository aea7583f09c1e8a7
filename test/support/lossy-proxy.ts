import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** An answer of the server that has not come to its client yet: what was asked for is done, and only this decides who knows. */
export interface HeldAnswer {
  /** False where it leaves a transaction open, so that nothing is done for good. */
  isCommitted: boolean;
  pass(): void;
  /** The connection is lost instead. */
  cut(): void;
  /** A pooler speaks in the server's place, and closes the connection. */
  tell(message: Buffer): void;
  /** The client is told another answer, and the connection lives on. */
  replace(message: Buffer): void;
}

/**
 * What becomes of a request: it is lost before the server has it (`unsent`; `unnoticed` where the server believes that its
 * client is still there), or its answer is handed to the function once the server has given it.
 */
export type Fate = 'pass' | 'unsent' | 'unnoticed' | ((answer: HeldAnswer) => void);

/** A stretch of network before a PostgreSQL, or a PgBouncer, that loses what a test wants lost. */
export interface LossyProxy {
  /** The server's URL with the proxy's address in it. */
  readonly url: string;
  /** Decides about each piece that a client sends; `connection` is the same for those of one connection. */
  onRequest: (piece: Buffer, connection: object) => Fate;
  /** Holds the next answers to requests that match and are committed by them. Resolves when the server has given as many. */
  holdAnswers(request: RegExp, count?: number): Promise<HeldAnswer[]>;
  /** Cuts every connection; the server finishes what it has. */
  cut(): void;
  /** Cuts every connection, and new ones are refused (ECONNREFUSED). */
  refuse(): Promise<void>;
  /** Cuts every connection, and new ones are taken and never answered. */
  hang(): void;
  /** New connections lead to another server. */
  moveTo(server: string): void;
  /** Nothing is lost any more, and new connections are as they were. */
  recover(): Promise<void>;
  close(): Promise<void>;
}

/** The ReadyForQuery that ends the answer to whatever was asked: in a transaction, in a failed one, or in none. */
const ANSWER_END = /Z\0\0\0\x05[ITE]$/;
const IDLE = 'I'.charCodeAt(0);

/** What a server says that has failed, on a connection that is idle then. */
export function failedWith(sqlState: string): Buffer {
  const fields = ['SERROR', 'VERROR', `C${sqlState}`, 'Mfailed'].map((field) => `${field}\0`).join('') + '\0';
  const length = Buffer.alloc(4);
  length.writeInt32BE(4 + fields.length);
  return Buffer.concat([Buffer.from('E'), length, Buffer.from(fields), Buffer.from('Z\0\0\0\x05I')]);
}

/** @param server URL of what stands behind it */
export async function startLossyProxy(server: string): Promise<LossyProxy> {
  let target = new URL(server);
  const sockets = new Set<Socket>();
  let isHanging = false;
  const listener = createServer((client) => {
    track(client, sockets);
    if (isHanging) return;
    const upstream = track(connect(Number(target.port), target.hostname), sockets);
    let isUnnoticed = false;
    const waiting: ((answer: HeldAnswer) => void)[] = [];
    client.on('data', (piece: Buffer) => {
      const fate = proxy.onRequest(piece, client);
      if (fate === 'unsent' || fate === 'unnoticed') {
        isUnnoticed = fate === 'unnoticed';
        client.destroy();
        return;
      }
      if (typeof fate === 'function') waiting.push(fate);
      upstream.write(piece);
    });
    upstream.on('data', (piece: Buffer) => {
      const pass = () => client.writable && client.write(piece);
      if (waiting.length === 0 || !ANSWER_END.test(piece.subarray(-6).toString('latin1'))) return pass();
      const cut = () => client.destroy();
      const tell = (message: Buffer) => (upstream.destroy(), client.end(message));
      const replace = (message: Buffer) => void client.write(message);
      const isCommitted = piece.at(-1) === IDLE;
      for (const decide of waiting.splice(0)) decide({ isCommitted, pass, cut, tell, replace });
    });
    // Also on a reset, which has no 'end'. The server finishes what it has before it reads the end of the connection.
    client.on('close', () => !isUnnoticed && upstream.end());
    upstream.on('close', () => client.destroySoon());
  });
  const listen = (at: number) => new Promise<void>((resolve) => listener.listen(at, '127.0.0.1', resolve));
  await listen(0);
  const { port } = listener.address() as AddressInfo;
  const cut = () => sockets.forEach((socket) => socket.destroy());
  const refuse = async () => {
    cut();
    if (listener.listening) await new Promise((resolve) => listener.close(resolve));
  };
  const url = new URL(server);
  url.host = `127.0.0.1:${port}`;
  const proxy: LossyProxy = {
    url: url.href,
    onRequest: () => 'pass',
    moveTo: (other) => void (target = new URL(other)),
    holdAnswers: (request, count = 1) =>
      new Promise((resolve) => {
        const held: HeldAnswer[] = [];
        proxy.onRequest = (piece) => {
          if (!request.test(piece.toString('latin1'))) return 'pass';
          return (answer) => {
            if (!answer.isCommitted || held.length >= count) answer.pass();
            else if (held.push(answer) === count) resolve(held);
          };
        };
      }),
    cut,
    refuse,
    hang: () => {
      isHanging = true;
      cut();
    },
    recover: async () => {
      proxy.onRequest = () => 'pass';
      if (listener.listening && !isHanging) return;
      isHanging = false;
      cut();
      if (!listener.listening) await listen(port);
    },
    close: refuse,
  };
  return proxy;
}

function track(socket: Socket, sockets: Set<Socket>): Socket {
  sockets.add(socket);
  return socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
}

/** The ErrorResponse by which a pooler or a server ends a session. */
export function fatalError(code: string, message: string): Buffer {
  const fields = Buffer.from(`SFATAL\0VFATAL\0C${code}\0M${message}\0\0`);
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeInt32BE(fields.length + 4, 1);
  return Buffer.concat([head, fields]);
}
