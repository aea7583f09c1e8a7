import { createServer, connect, type Socket } from 'node:net';
import type { AddressInfo } from 'node:net';

/** A stretch of network between a client and a server that a test can cut. */
export interface TcpProxy {
  /** `url` with the proxy's address in it. */
  through(url: string): string;
  /** Decides about each piece the client sends; false cuts the connection, before the server sees it or after. */
  onClientData: (data: Buffer) => 'pass' | 'cut-before' | 'cut-after';
  /** From now on nothing passes and nobody is told: packets are lost. */
  blackhole(): void;
  close(): Promise<void>;
}

export async function startTcpProxy(target: { host: string; port: number }): Promise<TcpProxy> {
  const sockets = new Set<Socket>();
  let lost = false;
  const server = createServer((client) => {
    const upstream = connect(target);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    }
    const cut = () => {
      client.destroy();
      upstream.destroy();
    };
    client.on('data', (data: Buffer) => {
      if (lost) return;
      const decision = proxy.onClientData(data);
      if (decision === 'cut-before') return cut();
      if (decision === 'cut-after') {
        client.destroy();
        upstream.end(data);
        return;
      }
      upstream.write(data);
    });
    upstream.on('data', (data) => !lost && client.writable && client.write(data));
    client.on('end', () => upstream.end());
    upstream.on('end', () => client.end());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const proxy: TcpProxy = {
    through: (text) => {
      const url = new URL(text);
      url.host = `127.0.0.1:${port}`;
      return url.href;
    },
    onClientData: () => 'pass',
    blackhole: () => (lost = true),
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return proxy;
}
