import { rmSync } from 'node:fs';

export default async function globalTeardown() {
  const { directory, running } = globalThis.testServers;
  await Promise.all(running.map((server) => server.stop()));
  rmSync(directory, { recursive: true, force: true });
}
