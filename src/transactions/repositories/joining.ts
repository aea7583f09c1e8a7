// transactions/repositories/: What TypeORM's repositories, managers and DataSource do inside of a unit of work.
// Promises: where they join, all of them run in the unit or are refused; other DataSources do as ever.
// May know: the context of a unit and TypeORM; not how units are run and repeated.

import { type DataSource, EntityManager, InstanceChecker, type QueryRunner } from 'typeorm';
import { standInForPoolRunners } from '../../database/connecting.js';
import type { IsolationLevel } from '../../database/data-source-options.js';
import { outsideTransaction } from '../session/places.js';
import type { TransactionContext } from '../transaction-context.js';
import { TransactionUsageError } from '../transaction-errors.js';
import type {
  RepositoryMode,
  TransactionOptions,
  TransactionRunnerSettings,
} from '../transaction-options.js';
import { innermostOn } from '../unit/nesting.js';
import { lendQueryRunner } from './lent-query-runner.js';
import { PoolQueryGuard } from './pool-query-guard.js';
import { cacheBeside } from './result-cache.js';

/** A `TransactionRunner`, as far as it is of use here. */
interface Runner {
  readonly dataSource: DataSource;
  readonly settings: Pick<TransactionRunnerSettings, 'repositories' | 'poolQueries'>;
  run<T>(options: TransactionOptions, work: (context: TransactionContext) => Promise<T>): Promise<T>;
}

type Work = (manager: EntityManager) => Promise<unknown>;

/** What is asked of one DataSource, by however many modules of an application. */
interface Policy {
  mode: RepositoryMode | undefined;
  runner: Runner;
}

const policies = new WeakMap<DataSource, Policy>();

/**
 * Decides what TypeORM does with the runner's DataSource inside of units of work, from now on.
 *
 * Whatever TypeORM sends without a QueryRunner of the caller's, it sends by one that it makes with `DataSource.createQueryRunner`
 * at that moment: for repositories of any kind and age, query builders, lazy relations, `dataSource.query`. So that is the one
 * place to stand in, on this DataSource alone, and no repository has to be known; but for `manager.transaction`.
 *
 * @throws TransactionUsageError something else was asked for before, or it can't be had
 */
export function decideOnRepositories(runner: Runner): void {
  const { dataSource, settings } = runner;
  // What stands in for one in a unit test sends nothing.
  if (!InstanceChecker.isDataSource(dataSource)) return;
  const mode = settings.repositories ?? settings.poolQueries;
  if (mode === 'join') assertJoinable(dataSource);
  const policy = policies.get(dataSource);
  if (policy?.mode && mode && policy.mode !== mode)
    throw new TransactionUsageError(
      `repositories: '${policy.mode}' and '${mode}' are both asked for of one DataSource: say the same in TransactionsModule.forRoot and in the \`transactions\` of PeopleModule, or in one of them only.`,
    );
  if (policy) policy.mode ??= mode;
  else install(dataSource, { mode, runner });
  if (mode === 'join') nestTransactions();
}

function install(dataSource: DataSource, policy: Policy): void {
  policies.set(dataSource, policy);
  const mode = () => policy.mode ?? 'warn';
  const joined = () => (mode() === 'join' ? innermostOn(dataSource) : undefined);
  const guard = PoolQueryGuard.watch(dataSource, mode);
  standInForPoolRunners(dataSource, (ofPool) => {
    const unit = innermostOn(dataSource);
    if (!unit) return ofPool();
    return mode() === 'join' ? lendQueryRunner(unit) : besideUnit(ofPool(), unit.id, guard);
  });
  cacheBeside(dataSource, () => joined() !== undefined);
}

let isNesting = false;

/**
 * `manager.transaction` inside of a unit is a nested unit where repositories join: as such it has a savepoint, and its turn. A manager may be
 * older than what is decided of its DataSource (a class that extends Repository makes one for itself), so it is their class that asks;
 * where nothing is decided it does as ever.
 */
function nestTransactions(): void {
  if (isNesting) return;
  isNesting = true;
  const { prototype } = EntityManager;
  // eslint-disable-next-line @typescript-eslint/unbound-method -- it is called on whichever manager it was asked of
  const apart = prototype.transaction as (...given: unknown[]) => Promise<unknown>;
  prototype.transaction = function (this: EntityManager, ...given: unknown[]): Promise<unknown> {
    const runner = nestingRunnerOf(this);
    if (!runner) return apart.apply(this, given);
    const work = given.find((each) => typeof each === 'function') as Work;
    const level = typeof given[0] === 'string' ? { isolationLevel: given[0] as IsolationLevel } : {};
    return runner.run({ propagation: 'NESTED', ...level }, (context) => work(context.manager));
  };
}

function nestingRunnerOf(manager: EntityManager): Runner | undefined {
  // TypeORM 0.3 calls it `connection`.
  const dataSource = (manager as Partial<EntityManager>).dataSource ?? manager.connection;
  const policy = policies.get(dataSource);
  const unit = policy?.mode === 'join' ? innermostOn(dataSource) : undefined;
  return unit && (!manager.queryRunner || manager === unit.manager) ? policy!.runner : undefined;
}

/** One of the pool: its connection may outlive the unit, and TypeORM tells its subscribers of queries, but not of streams. */
function besideUnit(runner: QueryRunner, unit: string, guard: PoolQueryGuard): QueryRunner {
  const connect = runner.connect.bind(runner);
  runner.connect = () => outsideTransaction(connect) as Promise<unknown>;
  const stream = runner.stream.bind(runner);
  runner.stream = async (query, ...rest) => {
    guard.tell(unit, query);
    return stream(query, ...rest);
  };
  return runner;
}

function assertJoinable(dataSource: DataSource): void {
  const { type } = dataSource.options;
  if (type !== 'postgres')
    throw new TransactionUsageError(
      `repositories: 'join' needs a DataSource of the type postgres, and this one is of the type ${type}: use repositories: 'throw'.`,
    );
  if (Object.getOwnPropertyDescriptor(dataSource, 'manager')?.get)
    throw new TransactionUsageError(
      "repositories: 'join' can't share a DataSource with a library that exchanges its manager: leave out addTransactionalDataSource of typeorm-transactional.",
    );
}
