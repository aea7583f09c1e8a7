import { once } from 'node:events';
import { Agent, createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { eventually } from '../support/barrier.js';
import { duringTests } from '../support/during-tests.js';
import { closedPort, ServiceHome, type ServiceProcess } from '../support/service-process.js';
import { createDatabase } from '../support/test-database.js';

const MINUTES = 240_000;
const CLIENTS = 4;
const PROBE_EVERY_MS = 100;
/** What each instance still serves for. */
const DELAY_MS = 2000;

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

/** One request, never a second one in its place. */
function send(agent: Agent, port: number, path: string, json?: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = json === undefined ? {} : { 'content-type': 'application/json' };
    const sent = request({ agent, port, path, method: json === undefined ? 'GET' : 'POST', headers });
    sent.on('error', reject).on('response', (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (piece: string) => (body += piece));
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }));
    });
    sent.end(json);
  });
}

/** Hands requests to those of `ports` that are ready, in turn and over connections that are kept. */
class Balancer {
  readonly ready = new Set<number>();
  private readonly agent = new Agent({ keepAlive: true });
  private readonly prober = new Agent({ keepAlive: false });
  private readonly timer: NodeJS.Timeout;
  private turn = 0;
  private readonly server: Server;

  constructor(private readonly ports: number[]) {
    this.timer = setInterval(() => void this.probe(), PROBE_EVERY_MS);
    this.server = createServer((incoming, outgoing) => {
      const { method, url: path, headers } = incoming;
      const targets = [...this.ready];
      const port = targets[this.turn++ % targets.length];
      const failed = (error: Error) => outgoing.writeHead(502).end(error.message);
      if (port === undefined) return void failed(new Error('nobody is ready'));
      // Hop by hop.
      const { connection: _, ...rest } = headers;
      const onward = request({ agent: this.agent, port, path, method, headers: rest });
      onward.on('error', failed).on('response', (response) => {
        outgoing.writeHead(response.statusCode!);
        response.pipe(outgoing);
      });
      incoming.pipe(onward);
    });
  }

  async listen(): Promise<number> {
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
    return (this.server.address() as AddressInfo).port;
  }

  close(): void {
    clearInterval(this.timer);
    this.agent.destroy();
    this.server.close();
    this.server.closeAllConnections();
  }

  private async probe(): Promise<void> {
    await Promise.all(
      this.ports.map(async (port) => {
        const status = await send(this.prober, port, '/health/ready').then(
          (answer) => answer.status,
          () => 0,
        );
        if (status === 200) this.ready.add(port);
        else this.ready.delete(port);
      }),
    );
  }
}

const home = duringTests(() => {
  const started = new ServiceHome();
  return Object.assign(started, { close: () => started.remove() });
});
const database = duringTests(() => createDatabase());

const startOn = (port: number, environment: Record<string, string> = {}): ServiceProcess =>
  home.start({
    KAFKA: 'off',
    NODE_ENV: 'production',
    DATABASE_URL: database.url,
    DB_POOL_SIZE: '3',
    PORT: String(port),
    SHUTDOWN_DELAY_MS: String(DELAY_MS),
    LOG_LEVEL: 'warn',
    ...environment,
  });

// @trap a rolling restart
it(
  'of three instances behind a balancer that obeys readiness, restarted one after another, no request is lost',
  async () => {
    const ports = [await closedPort(), await closedPort(), await closedPort()];
    const instances = ports.map((port) => startOn(port));
    const balancer = new Balancer(ports);
    const front = await balancer.listen();
    await eventually(() => balancer.ready.size === 3, 120_000);

    let isOver = false;
    const failed: string[] = [];
    const created: string[] = [];
    const client = async (name: string) => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      while (!isOver) {
        const answer = await send(agent, front, '/people', `{"name":"${name}"}`).catch(String);
        if (typeof answer === 'string' || answer.status !== 201) {
          failed.push(JSON.stringify(answer));
          continue;
        }
        const { id } = JSON.parse(answer.body) as { id: string };
        created.push(id);
        const found = await send(agent, front, `/people/${id}`).catch(String);
        if (typeof found === 'string' || found.status !== 200) failed.push(JSON.stringify(found));
      }
      agent.destroy();
    };
    const clients = Array.from({ length: CLIENTS }, (_, n) => client(`client ${n}`));
    for (const [index, instance] of instances.entries()) {
      const before = created.length;
      instance.signal('SIGTERM');
      expect(await instance.ended).toMatchObject({ code: 0 });
      await eventually(() => !balancer.ready.has(ports[index]!));
      instances[index] = startOn(ports[index]!);
      await eventually(() => balancer.ready.size === 3, 60_000);
      expect(created.length).toBeGreaterThan(before);
    }
    isOver = true;
    await Promise.all(clients);
    balancer.close();
    for (const instance of instances) instance.signal('SIGINT');
    expect(failed).toEqual([]);
    const [stored] = await database.query<{ n: number }>('SELECT count(*)::int AS n FROM people');
    expect(stored!.n).toBe(created.length);
    await Promise.all(instances.map(({ ended }) => ended));
  },
  MINUTES,
);

it(
  'while stopping begins everything is served, unready, and each answer ends its connection; once more ends it at once',
  async () => {
    const port = await closedPort();
    const service = startOn(port, { SHUTDOWN_DELAY_MS: '60000', SHUTDOWN_TIMEOUT_MS: '120000' });
    const agent = new Agent({ keepAlive: true });
    await eventually(() => send(agent, port, '/health/ready').then(({ status }) => status === 200, () => false), 120_000); // prettier-ignore
    expect((await send(agent, port, '/people?name=Ada')).headers.connection).toBe('keep-alive');
    service.signal('SIGTERM');
    await service.says('Stopping: serving on for 60000 ms');
    const unready = await send(agent, port, '/health/ready');
    expect(unready.status).toBe(503);
    expect(JSON.parse(unready.body)).toMatchObject({ error: { service: { reason: 'is stopping' } } });
    for (let n = 0; n < 3; n++) {
      const created = await send(agent, port, '/people', '{"name":"late"}');
      expect([created.status, created.headers.connection]).toEqual([201, 'close']);
    }
    await eventually(() => {
      service.signal('SIGTERM');
      return service.hasEnded;
    });
    expect((await service.ended).code).toBe(1);
    agent.destroy();
  },
  MINUTES,
);
