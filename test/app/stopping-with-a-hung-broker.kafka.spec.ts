import { existsSync, readFileSync } from 'node:fs';
import { eventually } from '../support/barrier.js';
import { ServiceHome } from '../support/service-process.js';

const MINUTES = 240_000;
const headers = { 'content-type': 'application/json' };

let home: ServiceHome;
beforeAll(() => {
  home = new ServiceHome();
});
afterAll(() => home.remove());

const brokerOf = () =>
  home.pids().find((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('kafka.Kafka'))!;

// @trap the broker hangs while the service stops
it.each(['kafkajs', 'platformatic'])(
  'a broker that hangs (%s) does not hold up stopping past the deadline: it is told, nothing is left, and the exit code is 1',
  async (client) => {
    const service = home.start({ KAFKA_CLIENT: client, SHUTDOWN_TIMEOUT_MS: '12000' });
    const { http } = await service.services();
    await eventually(
      async () => (await fetch(`${http}/health/ready?group=messages`)).status === 200,
      120_000,
    );
    process.kill(brokerOf(), 'SIGSTOP');
    // Its event waits in the outbox, and the relay for the broker.
    const created = await fetch(`${http}/people`, { method: 'POST', headers, body: '{"name":"Ada"}' });
    expect(created.status).toBe(201);
    service.signal('SIGTERM');
    const { code, stderr } = await service.ended;
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/What did not end: Kafka \((leaving|sending|closing)/),
    });
    // Not by the last resort: each part had a bound of its own.
    expect(stderr).not.toContain('Not everything ended within');
    await eventually(() => home.pids().length === 0);
    expect(existsSync(home.servicesFile)).toBe(false);

    // What was stored is there, and so is what was not sent.
    const next = home.start({ KAFKA_CLIENT: client });
    const again = await next.services();
    const { id } = (await created.json()) as { id: string };
    expect((await fetch(`${again.http}/people/${id}`)).status).toBe(200);
    next.signal('SIGTERM');
    expect(await next.ended).toMatchObject({ code: 0 });
  },
  MINUTES,
);
