import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type { Client, PoolClient } from 'pg';
import { DataSource, MigrationExecutor } from 'typeorm';
import { takesWrites } from '../../database/client-check.js';
import { failureOn } from '../../database/database-failure.js';
import { KnownServer } from '../../database/known-server.js';
import {
  connectBeside,
  poolOf,
  TAKES_NO_WRITES,
  whyNoWrites,
  wordsOf,
} from '../../database/pooled-client.js';

/** Asks the database, and gives the rows. @throws what it says */
export type Query = <Row>(text: string, values?: readonly unknown[]) => Promise<Row[]>;

/** The connection of a look, and how it is cut. It stays until the end of the look. */
interface Kept {
  client: Promise<Client>;
  cut: AbortController;
  isMade: boolean;
}

/** So many of them are made for a question, where somebody ends them while it is asked. */
const CONNECTIONS_AT_MOST = 3;
/** What the pool's own connections may take in the place of ours. */
const BY_POOL_MS = 900;

/**
 * Asks the database on a connection that is not the pool's, so that a pool whose connections are all taken is not mistaken for a
 * database that is down. Each look has a new one: a connection lives on where no new one would be made, as with a password that was
 * changed, or a database that lets nobody in. Where none can be made, those of the pool are asked, as long as it has some.
 */
@Injectable()
export class DatabaseProbe implements OnApplicationShutdown {
  private kept: Kept | undefined;
  private isByPool = false;
  /** Why it could not be asked when it last was. */
  private away: string | undefined;
  /** A connection has one question at a time. */
  private turn: Promise<unknown> = Promise.resolve();

  constructor(private readonly dataSource: DataSource) {}

  /** @throws what the database says; the last reason of `whyNoWrites` where it could not be asked then */
  readonly query: Query = async <Row>(text: string, values: readonly unknown[] = []) => {
    if (this.isByPool) return this.dataSource.query<Row[]>(text, [...values]);
    return this.ask(async (client) => (await client.query(text, [...values])).rows as Row[]);
  };

  /** That all connections of the pool are taken and more are waited for; undefined where there are others. */
  get poolExhausted(): string | undefined {
    const { options, totalCount, idleCount, waitingCount } = poolOf(this.dataSource);
    if (waitingCount === 0 || idleCount > 0 || totalCount < (options.max ?? 0)) return undefined;
    return `pool exhausted: all ${totalCount} connections are taken, and ${waitingCount} callers wait for one`;
  }

  /** Why the database can't be written to now, in its own words where it has said so; undefined where it takes writes. */
  async whyNoWrites(): Promise<string | undefined> {
    this.away = undefined;
    this.end();
    return this.askForWrites();
  }

  /** @throws as `query` does */
  async whyNotMigrated(): Promise<string | undefined> {
    const isPending = this.isByPool
      ? await this.showMigrations()
      : await this.ask((client) => this.showMigrations(client));
    return isPending ? 'pending; run npm run migration:run' : undefined;
  }

  /** Cuts a connection whose answer nobody waits for any more. */
  giveUp(): void {
    if (this.kept) this.cut(this.kept);
  }

  onApplicationShutdown(): void {
    this.end();
  }

  /** Ends the connection of a look: nobody has a use for it until the next one, which makes its own. */
  end(): void {
    const { kept } = this;
    if (!kept) return;
    if (!kept.isMade) return this.cut(kept);
    this.forget(kept);
    // Nobody waits for its farewell.
    kept.client.then((client) => client.end()).catch(() => undefined);
  }

  private async askForWrites(): Promise<string | undefined> {
    this.isByPool = false;
    let isConnected = false;
    try {
      return await this.ask(async (client, kept) => {
        isConnected = true;
        // It looks at nothing of what the pool adds to its clients.
        if (await takesWrites(client as unknown as PoolClient)) return undefined;
        KnownServer.of(this.dataSource).writesFailed();
        this.cut(kept);
        return TAKES_NO_WRITES;
      });
    } catch (error) {
      // Those that are there may go on where no new one is let in.
      this.isByPool = !isConnected && poolOf(this.dataSource).totalCount > 0;
      if (!this.isByPool) return (this.away = wordsOf(error));
      const reason = await whyNoWrites(this.dataSource, BY_POOL_MS);
      return reason && (this.poolExhausted ?? reason);
    }
  }

  private ask<T>(question: (client: Client, kept: Kept) => Promise<T>): Promise<T> {
    const asked = this.turn.then(() => this.askNow(question));
    this.turn = asked.catch(() => undefined);
    return asked;
  }

  private async askNow<T>(
    question: (client: Client, kept: Kept) => Promise<T>,
    connections = CONNECTIONS_AT_MOST,
  ): Promise<T> {
    if (this.away !== undefined) throw new Error(this.away);
    const kept = (this.kept ??= this.connect());
    let client: Client | undefined;
    try {
      client = await kept.client;
      return await question(client, kept);
    } catch (error) {
      const isLost = client && ((await failureOn(client, error))?.isLost ?? true);
      const isOurs = kept.cut.signal.aborted;
      if (!client || isLost) this.cut(kept);
      // That somebody has ended one connection says nothing of the next.
      if (isLost && !isOurs && connections > 1) return this.askNow(question, connections - 1);
      throw error;
    }
  }

  private connect(): Kept {
    const cut = new AbortController();
    const kept: Kept = {
      client: connectBeside(this.dataSource, cut.signal, 'probe'),
      cut,
      isMade: false,
    };
    kept.client.then(
      (client) => {
        kept.isMade = true;
        client.once('end', () => this.forget(kept));
      },
      // Told to whoever asks.
      () => this.forget(kept),
    );
    return kept;
  }

  private cut(kept: Kept): void {
    this.forget(kept);
    kept.cut.abort(new Error('The connection of the probe is given up.'));
  }

  private forget(kept: Kept): void {
    if (this.kept === kept) this.kept = undefined;
  }

  /** As the DataSource's own, which keeps the connection when it fails. */
  private async showMigrations(client?: Client): Promise<boolean> {
    const queryRunner = this.dataSource.createQueryRunner();
    if (client) queryRunner.connect = () => Promise.resolve(client);
    try {
      return await new MigrationExecutor(this.dataSource, queryRunner).showMigrations();
    } finally {
      await queryRunner.release();
    }
  }
}
