import { createParamDecorator, type ExecutionContext, Inject, UseInterceptors } from '@nestjs/common';
import 'reflect-metadata';
import type { Observable } from 'rxjs';
import { snapshot } from './argument-snapshot.js';
import { assertAnswersAfterCommit, assertPlainResult } from './handler-guards.js';
import { RetryingTransactionInterceptor } from './retrying-transaction.interceptor.js';
import { runClaimed, takePendingClaim } from './handler-claims.js';
import { currentTransaction } from './transaction-context.js';
import { TransactionUsageError } from './transaction-errors.js';
import { type TransactionOptions, validateOwnOptions } from './transaction-options.js';
import { TransactionRunner } from './transaction-runner.js';
import {
  beginsHandler,
  MANAGER_PARAMETER,
  TRANSACTIONAL_OPTIONS,
  type TransactionalOptions,
} from './transactional.metadata.js';

/** Where the class keeps the runner of its module. */
const RUNNER = Symbol('nestjs-people:transactionRunner');

/**
 * Runs the method in a unit of work: of a provider, of a controller, of a message controller. `TransactionsModule` (or
 * `PeopleModule`) has to be imported by its module. What `TransactionRunner.run` says of the work holds for the method; its
 * arguments are put back as they were before another attempt. A handler of a controller is run by
 * `RetryingTransactionInterceptor`, pipes and parameter decorators included.
 *
 * A handler may return an Observable, whose values are sent after the commit; a provider's method returns a promise.
 *
 * @throws TransactionUsageError when it is applied: options that contradict each other, or a handler that answers by itself
 *   (`@Res()` without `passthrough`, `@Sse()`)
 */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- the parameters are the method's own
export function Transactional<Parameters extends any[] = any[]>(
  options: TransactionalOptions<Parameters> = {},
) {
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- the parameters are the method's own
  return <Method extends (...parameters: any[]) => Promise<unknown> | Observable<unknown>>(
    target: object,
    key: string | symbol,
    descriptor: TypedPropertyDescriptor<Method>,
  ): void => {
    const original = descriptor.value as ((...parameters: unknown[]) => Promise<unknown>) | undefined;
    if (typeof original !== 'function')
      throw new TransactionUsageError('@Transactional() belongs on a method.');
    const { conflictKey, ...others } = options;
    validateOwnOptions(typeof conflictKey === 'string' ? { ...others, conflictKey } : others);
    assertAnswersAfterCommit(target, key, original);
    const wrapped = function (this: Record<symbol, TransactionRunner | undefined>, ...parameters: unknown[]) {
      if (beginsHandler(currentTransaction(), wrapped))
        return original.apply(this, withManager(target, key, parameters));
      const runner = this[RUNNER];
      if (!runner) {
        throw new TransactionUsageError(
          `@Transactional() on ${target.constructor.name}.${String(key)}: the object was not made by Nest, or its module does not import TransactionsModule.`,
        );
      }
      return runInUnit(runner, optionsFor(options, parameters), parameters, async () =>
        original.apply(this, withManager(target, key, parameters)),
      );
    };
    for (const name of Reflect.getMetadataKeys(original)) {
      Reflect.defineMetadata(name, Reflect.getMetadata(name, original), wrapped);
    }
    Object.defineProperty(wrapped, 'name', { value: original.name });
    Reflect.defineMetadata(TRANSACTIONAL_OPTIONS, options, wrapped);
    descriptor.value = wrapped as never;
    UseInterceptors(RetryingTransactionInterceptor)(target, key, descriptor);
    Inject(TransactionRunner)(target, RUNNER);
  };
}

/** The manager of the unit of work that the method runs in, fresh for each attempt: for TypeORM's repositories and queries. */
export function TransactionManager(): ParameterDecorator {
  const fromContext = createParamDecorator(
    (_: unknown, __: ExecutionContext) => currentTransaction()?.manager,
  );
  return (target, key, index) => {
    fromContext()(target, key, index);
    Reflect.defineMetadata(MANAGER_PARAMETER, index, target, key!);
  };
}

function optionsFor(
  { conflictKey, ...options }: TransactionalOptions,
  parameters: unknown[],
): TransactionOptions {
  if (conflictKey === undefined) return options;
  return {
    ...options,
    conflictKey: typeof conflictKey === 'function' ? conflictKey(...parameters) : conflictKey,
  };
}

async function runInUnit(
  runner: TransactionRunner,
  options: TransactionOptions,
  parameters: unknown[],
  method: () => Promise<unknown>,
): Promise<unknown> {
  const restore = options.maxAttempts === 1 ? () => undefined : snapshot(parameters);
  const [value] = await runClaimed(runner, options, takePendingClaim(), async ({ attempt }) => {
    if (attempt > 1) restore();
    return [assertPlainResult(await method())];
  });
  return value;
}

function withManager(target: object, key: string | symbol, parameters: unknown[]): unknown[] {
  const index = Reflect.getMetadata(MANAGER_PARAMETER, target, key) as number | undefined;
  if (index === undefined) return parameters;
  const manager = currentTransaction()?.manager;
  if (!manager)
    throw new TransactionUsageError('@TransactionManager() needs a unit of work around the method.');
  return Object.assign([...parameters], { [index]: manager });
}
