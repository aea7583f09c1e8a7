import type { ExecutionContext } from '@nestjs/common';
import { AsyncLocalStorage } from 'node:async_hooks';
import type { DataSource } from 'typeorm';
import type { PipelinedStatement } from '../database/pg/pipelined-query.js';
import { runInTrace, type TraceHeaders } from '../tracing/trace-context.js';
import { ClaimTakenError, TransactionOutcomeUnknownError } from './transaction-errors.js';
import type { TransactionContext } from './transaction-context.js';
import type { TransactionOptions } from './transaction-options.js';
import type { TransactionRunner } from './transaction-runner.js';

/** What keeps one call of a handler from being applied twice. */
export interface HandlerClaim {
  /** Fails with a unique violation when the call was applied before; written in the handler's own unit of work. */
  statement: PipelinedStatement;
  /** What names the trace that the call is part of, where it does not run in that already. */
  trace?: TraceHeaders | undefined;
  /** Travels with COMMIT; undefined where the result need not be kept. @param values what the handler gave */
  keep(values: readonly unknown[]): PipelinedStatement | undefined;
  /**
   * Looks whether the claim is committed, by this unit of work or another.
   *
   * @returns gives what the handler gave when the call was applied; throws what it threw, or that another call had the same name
   */
  find(): Promise<(() => unknown[] | Promise<unknown[]>) | undefined>;
}

/** Who knows which calls are messages that may be delivered again; registered for a DataSource. */
export interface HandlerClaims {
  /** True: the unit of work that the call is made in has claimed it. */
  isClaimed(context: ExecutionContext): boolean;
  /** undefined: the call need not be claimed. */
  claimFor(context: ExecutionContext): Promise<HandlerClaim | undefined>;
}

const claims = new WeakMap<DataSource, HandlerClaims>();
/** Of a handler that begins its unit of work where it is called, see `TransactionalOptions.conflictKey`. */
const pending = new AsyncLocalStorage<{ claim: HandlerClaim | undefined }>();

export function useHandlerClaims(dataSource: DataSource, of: HandlerClaims): void {
  claims.set(dataSource, of);
}

export const handlerClaimsOf = (dataSource: DataSource): HandlerClaims | undefined => claims.get(dataSource);

/** Hands a claim to the unit of work that the handler itself begins. */
export function withPendingClaim<T>(claim: HandlerClaim | undefined, call: () => T): T {
  return claim ? pending.run({ claim }, call) : call();
}

/** The claim that waits for the unit of work which is about to begin; for one only. */
export function takePendingClaim(): HandlerClaim | undefined {
  const store = pending.getStore();
  const claim = store?.claim;
  if (store) store.claim = undefined;
  return claim;
}

/** Runs a handler's unit of work, or gives what it gave when the same call was applied before. */
export async function runClaimed(
  runner: TransactionRunner,
  options: TransactionOptions,
  claim: HandlerClaim | undefined,
  work: (transaction: TransactionContext) => Promise<unknown[]>,
): Promise<unknown[]> {
  if (!claim) return runner.run(options, work);
  return runInTrace(claim.trace, () => runOnce(runner, options, claim, work));
}

async function runOnce(
  runner: TransactionRunner,
  options: TransactionOptions,
  claim: HandlerClaim,
  work: (transaction: TransactionContext) => Promise<unknown[]>,
): Promise<unknown[]> {
  try {
    return await runner.run({ ...options, claim: claim.statement }, async (transaction) => {
      const values = await work(transaction);
      transaction.atCommit(() => claim.keep(values));
      return values;
    });
  } catch (error) {
    const doubt =
      error instanceof TransactionOutcomeUnknownError
        ? error
        : error instanceof ClaimTakenError && error.doubt;
    if (!doubt && !(error instanceof ClaimTakenError)) throw error;
    // Where the server could not tell what became of the unit of work, its claim may; one that can't be read leaves the doubt.
    const kept = await claim.find().catch((failure: unknown) => {
      throw doubt || failure;
    });
    if (kept) return kept();
    if (doubt) throw doubt;
    return [];
  }
}
