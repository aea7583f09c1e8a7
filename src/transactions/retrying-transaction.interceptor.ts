import {
  type CallHandler,
  type ExecutionContext,
  Inject,
  Injectable,
  mixin,
  type NestInterceptor,
  type Type,
} from '@nestjs/common';
import { defer, from, lastValueFrom, map, mergeMap, type Observable, tap, toArray } from 'rxjs';
import { snapshot } from './argument-snapshot.js';
import { type HandlerClaim, handlerClaimsOf, runClaimed, withPendingClaim } from './handler-claims.js';
import {
  assertAnswersAfterCommit,
  assertPlainResult,
  inputsOf,
  type Replay,
  replayOf,
} from './handler-guards.js';
import { type TransactionOptions, validateOwnOptions } from './transaction-options.js';
import { TransactionRunner } from './transaction-runner.js';
import { currentTransaction } from './transaction-context.js';
import { noteFailure, notingThrown } from './unit-failures.js';
import {
  beginHandler,
  isBegunFor,
  TRANSACTIONAL_OPTIONS,
  type TransactionalOptions,
} from './transactional.metadata.js';

/** A message handler has to be done, retries included, before the broker takes its consumer for dead (kafkajs: 30 s). */
const MESSAGE_TIMEOUT_MS = 20_000;
const HEARTBEAT_EVERY_MS = 3000;

/**
 * Runs handlers in units of work, each with the pipes and parameter decorators anew for every attempt: bound to a controller
 * or a handler with `@UseInterceptors`, or to all of them as `APP_INTERCEPTOR` (which a hybrid application applies to message
 * handlers with `inheritAppConfig` only). Options come from the handler's `@Transactional`, or from `with`.
 *
 * What the handler gives is sent after the commit: all values of an Observable, nothing of an attempt that failed. Guards,
 * middleware, outer interceptors and request-scoped providers are the same for all attempts. An interceptor that reads the
 * body's stream (`FileInterceptor`) belongs before this one. What a handler of HTTP, of messages, of a WebSocket's gateway or
 * of GraphQL is given is put back for each attempt; other kinds of handlers may have one attempt only. A Kafka handler has 20 seconds unless `timeoutMs` says
 * otherwise, and heartbeats are sent between its attempts.
 */
@Injectable()
export class RetryingTransactionInterceptor implements NestInterceptor {
  /** Options for every handler that has none of its own. */
  protected readonly options: Omit<TransactionOptions, 'conflictKey'> = {};

  constructor(@Inject(TransactionRunner) private readonly runner: TransactionRunner) {}

  /** The interceptor with options: `@UseInterceptors(RetryingTransactionInterceptor.with({ isolationLevel: 'SERIALIZABLE' }))`. */
  static with(options: Omit<TransactionOptions, 'conflictKey'>): Type<RetryingTransactionInterceptor> {
    validateOwnOptions(options);
    class ConfiguredTransactionInterceptor extends RetryingTransactionInterceptor {
      protected override readonly options = options;
    }
    return mixin(ConfiguredTransactionInterceptor);
  }

  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const values = this.inUnit(context, next);
    return context.getType() === 'rpc' ? values.pipe(notingThrown(context.getHandler())) : values;
  }

  private inUnit(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const handler = context.getHandler();
    // By this interceptor at another level: what the handler asks for (REQUIRES_NEW) it has already.
    if (isBegunFor(currentTransaction(), handler)) return next.handle();
    // Also of a handler with @Transactional: @Sse() may have been applied after it. A resolver's @Context() looks like @Res().
    if (context.getType<string>() !== 'graphql')
      assertAnswersAfterCommit(context.getClass().prototype as object, handler.name, handler);
    const own = Reflect.getMetadata(TRANSACTIONAL_OPTIONS, handler) as TransactionalOptions | undefined;
    const claims = context.getType() === 'rpc' ? handlerClaimsOf(this.runner.dataSource) : undefined;
    if (!claims) return this.interceptClaimed(context, next, own, undefined);
    const transaction = currentTransaction();
    if (transaction && claims.isClaimed(context)) {
      beginHandler(transaction, handler);
      return next.handle().pipe(tap({ error: noteFailure }));
    }
    return defer(() => claims.claimFor(context)).pipe(
      mergeMap((claim) => this.interceptClaimed(context, next, own, claim)),
    );
  }

  private interceptClaimed(
    context: ExecutionContext,
    next: CallHandler,
    own: TransactionalOptions | undefined,
    claim: HandlerClaim | undefined,
  ): Observable<unknown> {
    const handler = context.getHandler();
    // The parameters that the key is made of are known where the method is called, which then begins the unit of work.
    if (typeof own?.conflictKey === 'function') return withPendingClaim(claim, () => next.handle());
    const replay = replayOf(context);
    const options = {
      ...messageDefaults(context, this.runner.settings),
      ...this.options,
      ...(own as TransactionOptions | undefined),
    };
    const { maxAttempts = this.runner.settings.maxAttempts } = options;
    const restore = snapshot(maxAttempts === 1 ? [] : inputsOf(context));
    const beat = heartbeatOf(context);
    const values = runClaimed(
      this.runner,
      {
        ...options,
        beforeRetry: async (retry) => {
          if (!isRepeatable(replay) || (await options.beforeRetry?.(retry)) === false) return false;
          await beat();
          restore();
          return true;
        },
      },
      claim,
      (transaction) => {
        beginHandler(transaction, handler);
        return lastValueFrom(next.handle().pipe(map(assertPlainResult<unknown>), toArray()));
      },
    );
    return from(values).pipe(mergeMap((all) => from(all)));
  }
}

/** An answer that is under way, or a body whose stream the handler has read, can't be had twice. */
function isRepeatable(replay: Replay | undefined): boolean {
  return !replay || (!replay.isSent() && (replay.wasRead || !replay.isRead()));
}

const isKafka = (context: ExecutionContext) =>
  context.getType() === 'rpc' &&
  typeof context.switchToRpc().getContext<KafkaLike>()?.getHeartbeat === 'function';

interface KafkaLike {
  getHeartbeat?: () => () => Promise<void>;
}

const messageDefaults = (
  context: ExecutionContext,
  { timeoutMs = MESSAGE_TIMEOUT_MS }: TransactionOptions,
): TransactionOptions => (isKafka(context) ? { timeoutMs } : {});

/** Sends a heartbeat where one is due. One that fails ends the attempts: the message is another consumer's by now. */
function heartbeatOf(context: ExecutionContext): () => Promise<void> {
  if (!isKafka(context)) return () => Promise.resolve();
  const send = context.switchToRpc().getContext<KafkaLike>().getHeartbeat!();
  let last = Date.now();
  return async () => {
    if (Date.now() - last < HEARTBEAT_EVERY_MS) return;
    last = Date.now();
    await send();
  };
}
