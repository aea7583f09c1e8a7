import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import path from 'node:path';
import { TLSSocket } from 'node:tls';

/** A stretch of TLS before a PostgreSQL that has none. */
export interface TlsServer {
  port: number;
  /** The file with the certificate of whoever has signed its own. */
  authority: string;
  close(): Promise<void>;
}

/** @param name what its certificate is for */
export async function startTlsServer(
  target: { host: string; port: number },
  name: string,
): Promise<TlsServer> {
  const [key, authority] = ['key', 'crt'].map((end) => path.join(process.env.TMPDIR!, `${name}.${end}`));
  const arguments_ = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1', '-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`, '-keyout', key!, '-out', authority!]; // prettier-ignore
  execFileSync('openssl', arguments_, { stdio: 'ignore' });
  const secure = { isServer: true, key: readFileSync(key!), cert: readFileSync(authority!) };
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(target);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    }
    client.on('close', () => upstream.destroy());
    upstream.on('close', () => client.destroy());
    // The client asks for TLS before it says anything else.
    client.once('data', () => {
      client.write('S');
      const inside = new TLSSocket(client, secure);
      inside.on('error', () => undefined);
      inside.pipe(upstream).pipe(inside);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    authority: authority!,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
