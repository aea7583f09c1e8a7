import type { TransactionContext } from './transaction-context.js';
import type { TransactionOptions } from './transaction-options.js';

/** Options of `@Transactional`. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- the parameters are the method's own
export interface TransactionalOptions<Parameters extends any[] = any[]> extends Omit<
  TransactionOptions,
  'conflictKey'
> {
  /**
   * As in `TransactionOptions`, or a function of the method's parameters. With a function, pipes and parameter decorators
   * of a handler run once, before the first attempt, and what else
   * `RetryingTransactionInterceptor` does for handlers (Observables, the budget and heartbeats of messages) does not apply.
   */
  conflictKey?: string | ((...parameters: Parameters) => string);
}

/** On a method: the options of its `@Transactional`. */
export const TRANSACTIONAL_OPTIONS = 'nestjs-people:transactional';
/** On a class and a method of it: which parameter takes the manager. */
export const MANAGER_PARAMETER = 'nestjs-people:transaction-manager';

const begun = new WeakMap<TransactionContext, unknown>();

/** Says that this attempt is there to run `handler`, which then needs no unit of work of its own. */
export function beginHandler(context: TransactionContext, handler: unknown): void {
  begun.set(context, handler);
}

/** True between `beginHandler` and the handler. */
export function isBegunFor(context: TransactionContext | undefined, handler: unknown): boolean {
  return context !== undefined && begun.get(context) === handler;
}

/** True once for each `beginHandler`: a handler that calls itself runs as any other method. */
export function beginsHandler(context: TransactionContext | undefined, handler: unknown): boolean {
  return isBegunFor(context, handler) && begun.delete(context!);
}
