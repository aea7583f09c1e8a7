import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** A stretch of network before the database that loses the answers to COMMIT, for as long as it is told to. */
export async function startLosingProxy() {
  const target = new URL(process.env.DATABASE_URL!);
  const sockets = new Set<Socket>();
  let losing = 0;
  let lost = 0;
  const listener = createServer((client) => {
    const server = connect(Number(target.port || 5432), target.hostname);
    let isLost = false;
    for (const socket of [client, server]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => sockets.delete(socket));
    }
    client.on('data', (request) => {
      if (losing > 0 && request.includes('COMMIT')) {
        losing--;
        lost++;
        isLost = true;
      }
      server.write(request);
    });
    // The server has committed by the time it answers; then the connection breaks.
    server.on('data', (answer) => (isLost ? client.destroy() : client.write(answer)));
    client.on('close', () => server.end());
    server.on('close', () => client.end());
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  return {
    url: Object.assign(new URL(target), { host: `127.0.0.1:${(listener.address() as AddressInfo).port}` })
      .href,
    /** Answers that were lost so far. */
    lost: () => lost,
    loseCommits: (count: number) => (losing = count),
    close: () => {
      for (const socket of sockets) socket.destroy();
      listener.close();
    },
  };
}
