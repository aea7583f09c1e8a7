import { Kafka, logLevel } from 'kafkajs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Operation, Permissions } from '../support/permissions.js';
import { COMMANDS, DEAD_LETTERS, EVENTS } from './topics.js';

/** What people who look after a cluster do to one topic of the services; the messages are on others, or wait. */
export const CLUSTER_FAULTS = [
  'a topic is deleted',
  'commands may not be read',
  'events may not be written',
  'dead letters may not be written',
] as const;
export type ClusterFault = (typeof CLUSTER_FAULTS)[number];

const DENIED: Record<Exclude<ClusterFault, 'a topic is deleted'>, [Operation, topic: string]> = {
  'commands may not be read': ['READ', COMMANDS],
  'events may not be written': ['WRITE', EVENTS],
  'dead letters may not be written': ['WRITE', DEAD_LETTERS],
};
/** Services read it, and the check sends nothing there. */
const DELETED = 'people.find-by-name';
/** Longer than it takes to be noticed, a few times. */
const DENIED_MS = 6_000;
const MADE_AGAIN_MS = 60_000;

/** Does it by a connection of its own each time, as the broker may have been killed in between. */
export class ClusterFaults {
  constructor(
    private readonly port: number,
    private readonly onViolation: (violation: string) => unknown,
  ) {}

  /** The services may do everything, until they may not. */
  grantAll(): Promise<void> {
    return this.untilDone((admin) => new Permissions(admin).grantAll());
  }

  /** @returns when it is over */
  async strike(fault: ClusterFault): Promise<void> {
    if (fault === 'a topic is deleted') return this.deleteTopic();
    const [operation, topic] = DENIED[fault];
    await this.untilDone((admin) => new Permissions(admin).deny(operation, { topic }));
    await sleep(DENIED_MS);
    await this.untilDone((admin) => new Permissions(admin).allow(operation, { topic }));
  }

  private async deleteTopic(): Promise<void> {
    const isThere = (admin: Admin) => admin.listTopics().then((topics) => topics.includes(DELETED));
    // It may be made again before it is looked at: so it is enough that there is one in the end.
    await this.untilDone(async (admin) => {
      if (await isThere(admin)) await admin.deleteTopics({ topics: [DELETED] });
    });
    const deadline = Date.now() + MADE_AGAIN_MS;
    while (!(await this.untilDone(isThere))) {
      if (Date.now() > deadline) {
        this.onViolation(`${DELETED} was deleted, and no service has made it again`);
        return;
      }
      await sleep(500);
    }
  }

  private async untilDone<T>(work: (admin: Admin) => Promise<T>): Promise<T> {
    for (;;) {
      const brokers = [`127.0.0.1:${this.port}`];
      const admin = new Kafka({ brokers, logLevel: logLevel.NOTHING, retry: { retries: 0 } }).admin();
      try {
        await admin.connect();
        return await work(admin);
      } catch {
        // It is being killed, or comes back.
        await sleep(200);
      } finally {
        await admin.disconnect().catch(() => undefined);
      }
    }
  }
}

type Admin = ReturnType<Kafka['admin']>;
