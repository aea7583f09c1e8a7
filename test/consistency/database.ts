import pg from 'pg';
import { setTimeout as sleep } from 'node:timers/promises';

/** The check's own way to the server, past everything that loses something. */
export interface Database {
  /** Asked again until the server is there. Only for what may be asked twice. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
  /** Asks another server from now on. */
  moveTo(url: string): Promise<void>;
  close(): Promise<void>;
}

export function openDirectly(url: string): Database {
  let pool = poolOn(url);
  return {
    query: async <Row extends pg.QueryResultRow>(text: string, values: unknown[] = []) => {
      for (;;) {
        try {
          return (await pool.query<Row>(text, values)).rows;
        } catch (error) {
          const { code = '' } = error as { code?: string };
          // A class 08 or 57P, or none at all: it is being restarted, or this session was killed.
          if (/^\w{5}$/.test(code) && !/^(08|57P)/.test(code)) throw error;
          await sleep(50);
        }
      }
    },
    moveTo: async (other) => {
      const before = pool;
      pool = poolOn(other);
      await before.end();
    },
    close: () => pool.end(),
  };
}

function poolOn(url: string): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max: 6, connectionTimeoutMillis: 5000 });
  // A client that dies while nobody uses it is replaced.
  pool.on('error', () => undefined);
  return pool;
}
