import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/**
 * A cut comes before or after the server has what was sent; with `cut-unnoticed` the server has it not, and believes that the
 * client is still there. What is swallowed neither comes nor cuts.
 */
export type Decision = 'pass' | 'cut-before' | 'cut-after' | 'cut-unnoticed' | 'swallow';

/** A stretch of network between a client and a server that a test can cut. */
export interface TcpProxy {
  /** `url` with the proxy's address in it. */
  through(url: string): string;
  /** Decides about each piece the client sends. */
  onClientData: (data: Buffer) => Decision;
  /** Where new connections go; those that are open stay where they are. */
  target: { host: string; port: number };
  /** Cuts every connection and takes no new one until `accept`. */
  refuse(): Promise<void>;
  accept(): Promise<void>;
  close(): Promise<void>;
}

/** In front of the server of a url. */
export function startTcpProxyTo(url: string): Promise<TcpProxy> {
  const { hostname, port } = new URL(url);
  return startTcpProxy({ host: hostname, port: Number(port) });
}

export async function startTcpProxy(target: { host: string; port: number }): Promise<TcpProxy> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(proxy.target);
    let isUnnoticed = false;
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    }
    client.on('data', (data: Buffer) => {
      const decision = proxy.onClientData(data);
      if (decision === 'pass') return upstream.write(data);
      if (decision === 'swallow') return undefined;
      isUnnoticed = decision === 'cut-unnoticed';
      client.destroy();
      if (isUnnoticed) return;
      if (decision === 'cut-after') return upstream.end(data);
      return upstream.destroy();
    });
    upstream.on('data', (data) => client.writable && client.write(data));
    // Also on a reset, which has no 'end': an end that nobody hears would be another fault.
    client.on('close', () => !isUnnoticed && upstream.end());
    upstream.on('close', () => client.destroy());
  });
  const listen = (port: number) => new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  await listen(0);
  const { port } = server.address() as AddressInfo;
  const refuse = async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  };
  const proxy: TcpProxy = {
    through: (text) => {
      const url = new URL(text);
      url.host = `127.0.0.1:${port}`;
      return url.href;
    },
    onClientData: () => 'pass',
    target,
    refuse,
    accept: () => listen(port),
    close: refuse,
  };
  return proxy;
}
