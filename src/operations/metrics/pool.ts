import type { Pool } from 'pg';
import { Gauge, type Registry } from 'prom-client';
import type { DataSource } from 'typeorm';
import { poolOf } from '../../database/pooled-client.js';

/** Shows the connections of the database pool. */
export function showPool(registry: Registry, dataSource: DataSource): void {
  const registers = [registry];
  const pool = () => poolOf(dataSource) as Pool | undefined;
  new Gauge({
    name: 'people_pool_connections',
    help: 'Connections of the database pool: open ones are active or idle; and callers that wait for one.',
    labelNames: ['state'],
    registers,
    collect() {
      const { totalCount = 0, idleCount = 0, waitingCount = 0 } = pool() ?? {};
      this.set({ state: 'open' }, totalCount);
      this.set({ state: 'active' }, totalCount - idleCount);
      this.set({ state: 'idle' }, idleCount);
      this.set({ state: 'waiting' }, waitingCount);
    },
  });
  new Gauge({
    name: 'people_pool_max_connections',
    help: 'Connections that the database pool may open.',
    registers,
    collect() {
      this.set(pool()?.options.max ?? 0);
    },
  });
  new Gauge({
    name: 'people_pool_waiting_callers',
    help: 'Callers that wait for a connection of the database pool.',
    registers,
    collect() {
      this.set(pool()?.waitingCount ?? 0);
    },
  });
}
