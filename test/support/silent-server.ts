import { type AddressInfo, createServer, type Socket } from 'node:net';

/** Takes connections and says nothing, as a host that has died behind a firewall, or is stopped. */
export interface SilentServer {
  /** Host and port. */
  host: string;
  connections: Set<Socket>;
  close(): Promise<void>;
}

export async function startSilentServer(): Promise<SilentServer> {
  const connections = new Set<Socket>();
  const server = createServer((socket) => {
    connections.add(socket.resume());
    socket.on('error', () => undefined).on('close', () => connections.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    connections,
    close: () => {
      for (const socket of connections) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
