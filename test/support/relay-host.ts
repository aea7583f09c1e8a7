import { Logger, type LoggerService } from '@nestjs/common';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type KafkaProducer,
  type OutgoingRecord,
  RecordRefusedError,
} from '../../src/messaging/kafka-driver.js';
import { OutboxRelay } from '../../src/messaging/outbox-relay.js';
import { Outbox } from '../../src/messaging/outbox.js';
import type { PeopleApp } from './people-app.js';

/** A broker of which a test decides what it does. */
export class Broker {
  /** What it has acknowledged: aggregate and type of each event, in their order. */
  readonly taken: { id: string; type: string }[] = [];
  /** Sends that were begun. */
  sends = 0;
  /** Aggregates whose events it refuses. */
  readonly refused = new Set<string>();
  /** Sends wait for it. */
  held: Promise<void> | undefined;

  readonly producer: KafkaProducer = {
    raw: undefined,
    send: async (records) => {
      this.sends++;
      await this.held;
      if (records.some(({ key }) => this.refused.has(String(key))))
        throw new RecordRefusedError('There is no such topic.', false);
      this.taken.push(...records.map(nameOf));
    },
    close: () => Promise.resolve(),
  };

  /** Types of an aggregate's events. */
  of(id: string): string[] {
    return this.taken.filter((event) => event.id === id).map(({ type }) => type);
  }
}

const nameOf = ({ key, headers }: OutgoingRecord) => ({ id: String(key), type: String(headers?.ce_type) });

/** A relay of the application's, by hand. */
export const relayOf = ({ app, transactions, dataSource }: PeopleApp, broker: Broker): OutboxRelay =>
  new OutboxRelay(transactions, app.get(Outbox, { strict: false }), dataSource, 1000, () => broker.producer);

/** Events of one aggregate, in one unit of work. */
export const publish = ({ app, transactions }: PeopleApp, id: string, types: readonly string[]) =>
  transactions.run({}, () => {
    const outbox = app.get(Outbox, { strict: false });
    for (const type of types) outbox.publish({ aggregateType: 'x', aggregateId: id, type, topic: 'events' });
    return Promise.resolve();
  });

/** Aggregates whose events are in one shard. */
export async function idsOfOneShard({ database }: PeopleApp, count: number): Promise<string[]> {
  const rows = await database.query<{ id: string }>(
    `SELECT id FROM (SELECT 'id ' || n AS id FROM generate_series(1, 1000) n) ids
     WHERE abs(hashtext(id) % 16) = 3 LIMIT $1`,
    [count],
  );
  return rows.map(({ id }) => id);
}

/** Transactions that the application's database has committed; what its sessions have done comes to it after a while. */
export async function transactionsOf({ database }: PeopleApp): Promise<number> {
  await sleep(1100);
  const [row] = await database.query<{ n: string }>(
    'SELECT xact_commit AS n FROM pg_stat_database WHERE datname = current_database()',
  );
  return Number(row!.n);
}

/** Collects what is logged as a warning, or when a condition is over, until it is given back. */
export function collectLogs(): { logs: string[]; giveBack: () => void } {
  const logs: string[] = [];
  const add = (entry: unknown) => void logs.push(typeof entry === 'string' ? entry : JSON.stringify(entry));
  const nothing = () => undefined;
  const logger: LoggerService = { log: add, warn: add, error: nothing, debug: nothing };
  Logger.overrideLogger(logger);
  return { logs, giveBack: () => Logger.overrideLogger(false) };
}
