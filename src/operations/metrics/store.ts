import { Gauge, type Registry } from 'prom-client';
import type { DataSource } from 'typeorm';
import { readStoreFigures, type StoreFigures } from '../../messaging/telemetry/store-figures.js';
import { OTHER } from './counts.js';
import type { SourceUp } from './sources.js';

const LETTERS_AT_MOST = 100;

/** Shows what waits in the database. Each instance shows the same. */
export function showStore(registry: Registry, dataSource: DataSource, up: SourceUp): void {
  const figures = up.source('database', (signal) => readStoreFigures(dataSource, signal));
  const registers = [registry];
  const gauge = (name: string, help: string, value: (known: StoreFigures) => number | undefined) =>
    new Gauge({
      ...{ name, help, registers },
      async collect() {
        const known = await figures.known();
        const shown = known && value(known);
        this.remove();
        if (shown !== undefined) this.set(shown);
      },
    });
  gauge(
    'people_outbox_events',
    'Events and dead letters that wait in the outbox: counted up to 10,000, above that as many as PostgreSQL estimates.',
    ({ outbox }) => outbox?.events,
  );
  gauge(
    'people_outbox_delayed_events',
    'Events of the outbox that were refused or wait behind one that was, counted up to 10,000.',
    ({ outbox }) => outbox?.delayed,
  );
  gauge(
    'people_outbox_oldest_age_seconds',
    'Age of the oldest event in the outbox; 0 where it is empty.',
    ({ outbox }) => outbox?.oldestSeconds,
  );
  gauge(
    'people_inbox_rows',
    'Rows of the inbox as PostgreSQL estimates them (pg_class.reltuples).',
    ({ inboxRows }) => inboxRows,
  );
  gauge('people_inbox_bytes', 'Size of the inbox with its indexes.', ({ inboxBytes }) => inboxBytes);
  gauge(
    'people_instances_alive',
    'Instances that have given a sign of life in the database in the last 10 s.',
    ({ instances }) => instances,
  );
  new Gauge({
    name: 'people_quarantined_keys',
    help: 'Keys whose messages wait in the database: until a dead letter is replayed or discarded (held), or to be tried again (waiting); counted up to 10,000.',
    labelNames: ['state'],
    registers,
    async collect() {
      const known = await figures.known();
      this.reset();
      if (!known) return;
      this.set({ state: 'held' }, known.keysHeld);
      this.set({ state: 'waiting' }, known.keysWaiting);
    },
  });
  new Gauge({
    name: 'people_dead_letters',
    help: 'Dead letters, and messages that are parked, by the code of the error; of each topic the oldest 1,000 are counted.',
    labelNames: ['topic', 'code', 'state'],
    registers,
    async collect() {
      const known = await figures.known();
      this.reset();
      for (const [place, { topic, code, state, letters }] of (known?.letters ?? []).entries()) {
        const isShown = place < LETTERS_AT_MOST;
        this.inc(isShown ? { topic, code, state } : { topic: OTHER, code: OTHER, state }, letters);
      }
    },
  });
}
