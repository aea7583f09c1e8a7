import { Inject, Injectable } from '@nestjs/common';
import { endsWithin } from '../../messaging/waiting.js';
import { DatabaseProbe, type Query } from './database-probe.js';
import { Stopping } from './stopping.js';

/** The group of what is needed for anything; the others need it as well. */
export const HTTP_GROUP = 'http';

/** Why something that readiness depends on is not available; undefined when it is. */
export interface ReadinessSource {
  name: string;
  /** The one group that needs it. Default: `http`, and so every group; null: a reason is told, and makes nothing unready. */
  group?: string | null;
  /** Whether there is such a thing at the moment; it is neither looked at nor told where not. Default: there is. */
  isThere?(): boolean;
  /** @param query asks the database on the probe's own connection, which nobody of the pool keeps waiting */
  unavailableReason(query: Query): string | undefined | Promise<string | undefined>;
}

/** Sources of readiness beside the database: an array of `ReadinessSource`. */
export const READINESS_SOURCES = Symbol('READINESS_SOURCES');

/** Something that was looked at. */
export interface Condition {
  name: string;
  /** The group that needs it; undefined: it is told, and makes nothing unready. */
  group: string | undefined;
  /** Why it is not available; undefined when it is. */
  reason: string | undefined;
}

/** A balancer asks every second or so: what has not answered by then counts as away. */
const LIMIT_MS = 1000;

/** Looks at everything that readiness depends on: once for all who ask meanwhile, and never for longer than a second. */
@Injectable()
export class Readiness {
  private looking: Promise<Condition[]> | undefined;

  constructor(
    private readonly probe: DatabaseProbe,
    private readonly stopping: Stopping,
    @Inject(READINESS_SOURCES) private readonly known: readonly ReadinessSource[],
  ) {}

  private get sources(): ReadinessSource[] {
    return this.known.filter((source) => source.isThere?.() ?? true);
  }

  /** The groups that can be asked for. */
  get groups(): string[] {
    const groups = this.sources.flatMap(({ group }) => group ?? []);
    return [...new Set([HTTP_GROUP, ...groups])];
  }

  look(): Promise<Condition[]> {
    return (this.looking ??= this.lookAtAll().finally(() => (this.looking = undefined)));
  }

  private async lookAtAll(): Promise<Condition[]> {
    const { probe, stopping } = this;
    const writes = probe.whyNoWrites();
    // Whether the database is there at all is asked first.
    const query: Query = (...question) => writes.then(() => probe.query(...question));
    const sources: ReadinessSource[] = [
      { name: 'database', unavailableReason: () => writes },
      { name: 'migrations', unavailableReason: () => writes.then(() => probe.whyNotMigrated()) },
      ...this.sources,
    ];
    const late = `no answer within ${LIMIT_MS} ms`;
    const conditions = sources.map(({ name, group = HTTP_GROUP }): Condition => ({
      name,
      group: group ?? undefined,
      reason: late,
    }));
    const asking = sources.map(async (source, index) => {
      conditions[index]!.reason = await reasonOf(source, query);
    });
    if (await endsWithin(LIMIT_MS, Promise.all(asking))) probe.end();
    else probe.giveUp();
    const service = {
      name: 'service',
      group: HTTP_GROUP,
      reason: stopping.hasBegun ? 'is stopping' : undefined,
    };
    const { poolExhausted } = probe;
    const pool = { name: 'pool', group: undefined, reason: poolExhausted };
    // What nothing depends on is told where there is something to tell.
    const isTold = ({ group, reason }: Condition) => group !== undefined || reason !== undefined;
    return [service, ...conditions.map((each) => ({ ...each })), pool].filter(isTold);
  }
}

async function reasonOf(source: ReadinessSource, query: Query): Promise<string | undefined> {
  try {
    return await source.unavailableReason(query);
  } catch (error) {
    return (error as Error).message || (error as Error).name;
  }
}
