import { setTimeout as sleep } from 'node:timers/promises';
import {
  DatabaseUnavailableError,
  PoolExhaustedError,
  StatementTimeoutError,
} from '../../src/database/postgres-errors.js';
import type { TransactionContext } from '../../src/transactions/transaction-context.js';
import {
  AfterCommitError,
  TransactionOutcomeUnknownError,
  TransactionRetriesExhaustedError,
  TransactionTimeoutError,
} from '../../src/transactions/transaction-errors.js';
import type { PeopleHost } from '../support/people-host.js';
import { closedPort } from '../support/service-process.js';
import type { Database } from './database.js';
import type { Told } from './ledger.js';

export interface TransferCounts {
  done: number;
  failed: number;
  unknown: number;
  retries: number;
  /** Ended by an error that has nothing to do with the database. */
  foreign: number;
}

const ACCOUNTS = 24;
const START_BALANCE = 1000;
/** Parts of the transfers. */
const [FOREIGN, SLOW, WITH_COMMIT] = [0.04, 0.04, 0.5];
/** What a transfer may end with that says that it has changed nothing. */
const FAILURES = [
  TransactionRetriesExhaustedError,
  TransactionTimeoutError,
  DatabaseUnavailableError,
  PoolExhaustedError,
  StatementTimeoutError,
];

/** Errors of other origin that look like the database's. */
const FOREIGN_ERRORS: (() => Promise<unknown>)[] = [
  async () => fetch(`http://127.0.0.1:${await closedPort()}/`),
  () => Promise.reject(Object.assign(new Error('of another make'), { code: '40001' })),
  () => Promise.reject(Object.assign(new Error('of another database'), { code: '40001', severity: 'ERROR' })),
  () => Promise.reject(Object.assign(new Error('of another database'), { code: '57P01', severity: 'FATAL' })),
  () => Promise.reject(new Error('Connection terminated unexpectedly')),
];

/** Amounts that are moved between people under SERIALIZABLE, in units of work. */
export class Transfers {
  readonly counts: TransferCounts = { done: 0, failed: 0, unknown: 0, retries: 0, foreign: 0 };
  private readonly told = new Map<string, Told>();

  private constructor(
    private readonly app: Pick<PeopleHost, 'people' | 'transactions' | 'dataSource'>,
    private readonly accounts: readonly string[],
    private readonly random: () => number,
    private readonly violations: string[],
  ) {}

  static async open(
    app: Pick<PeopleHost, 'people' | 'transactions' | 'dataSource'>,
    random: () => number,
    violations: string[],
  ): Promise<Transfers> {
    await app.dataSource.query('CREATE TABLE transfers (id uuid PRIMARY KEY, amount int NOT NULL)');
    const people = Array.from({ length: ACCOUNTS }, (_, index) => ({
      name: `account ${index}`,
      data: { balance: START_BALANCE },
    }));
    return new Transfers(app, (await app.people.createMany(people)).ids, random, violations);
  }

  async run(isOver: () => boolean): Promise<void> {
    while (!isOver()) await this.transfer();
  }

  private async transfer(): Promise<void> {
    const { app, accounts, random, counts, told, violations } = this;
    const pick = () => accounts[Math.floor(random() * accounts.length)]!;
    const [from, to, amount] = [pick(), pick(), 1 + Math.floor(random() * 10)];
    if (from === to) return;
    const isSlow = random() < SLOW;
    const isWithCommit = random() < WITH_COMMIT;
    const fail =
      random() < FOREIGN ? FOREIGN_ERRORS[Math.floor(random() * FOREIGN_ERRORS.length)] : undefined;
    const id = crypto.randomUUID();
    let thrown: Error | undefined;
    try {
      await app.transactions.run({ isolationLevel: 'SERIALIZABLE' }, async (transaction) => {
        thrown = undefined;
        if (transaction.attempt > 1) counts.retries++;
        const balances = [await balanceOf(transaction, from), await balanceOf(transaction, to)] as const;
        await setBalance(transaction, from, balances[0] - amount);
        if (isSlow) await sleep(50 + random() * 300);
        await setBalance(transaction, to, balances[1] + amount);
        const insert = { text: 'INSERT INTO transfers VALUES ($1, $2)', values: [id, amount] };
        if (fail || !isWithCommit) await transaction.query(insert);
        // Done, where its answer alone is lost.
        else await transaction.commitWith(insert).catch(unlessCommitted);
        await fail?.().catch((error: Error) => {
          thrown = error;
          throw error;
        });
      });
      counts.done++;
      told.set(id, 'done');
    } catch (error) {
      told.set(id, 'nothing');
      if (thrown !== undefined) {
        counts.foreign++;
        if (error === thrown) return;
        violations.push(`the work threw ${String(thrown)}, and the caller got ${String(error)}`);
      } else if (error instanceof TransactionOutcomeUnknownError) {
        counts.unknown++;
        told.set(id, 'unknown');
      } else if (FAILURES.some((failure) => error instanceof failure)) {
        counts.failed++;
        await sleep(20);
      } else {
        violations.push(`a transfer ended with ${String((error as Error).stack)}`);
      }
    }
  }

  /** @returns what is not as it was told */
  async compare(database: Database): Promise<string[]> {
    const { told, accounts } = this;
    const violations: string[] = [];
    const rows = await database.query<{ id: string }>('SELECT id FROM transfers');
    const stored = new Set(rows.map(({ id }) => id));
    const [sum] = await database.query<{ sum: number }>(
      `SELECT sum((data->>'balance')::int)::int AS sum FROM people WHERE name LIKE 'account %'`,
    );
    const expected = accounts.length * START_BALANCE;
    if (sum!.sum !== expected) violations.push(`the sum is ${sum!.sum}, not ${expected}`);
    for (const [id, outcome] of told) {
      if (outcome === 'done' && !stored.has(id)) violations.push(`${id} was told as done and is not there`);
      if (outcome === 'nothing' && stored.has(id)) violations.push(`${id} was told as failed and is there`);
    }
    for (const id of stored) if (!told.has(id)) violations.push(`${id} is there and was not told`);
    return violations;
  }
}

function unlessCommitted(error: unknown): void {
  if (!(error instanceof AfterCommitError)) throw error;
}

async function balanceOf(transaction: TransactionContext, id: string): Promise<number> {
  const { rows } = await transaction.query<{ balance: number }>({
    text: `SELECT (data->>'balance')::int AS balance FROM people WHERE id = $1`,
    values: [id],
  });
  return rows[0]!.balance;
}

const setBalance = (transaction: TransactionContext, id: string, balance: number) =>
  transaction.query({ text: 'UPDATE people SET data = $2 WHERE id = $1', values: [id, { balance }] });
