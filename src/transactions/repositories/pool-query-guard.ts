import { Logger } from '@nestjs/common';
import type { BeforeQueryEvent, DataSource, EntitySubscriberInterface } from 'typeorm';
import { isIndifferent } from '../session/type-orm.js';
import { TransactionUsageError } from '../transaction-errors.js';
import type { RepositoryMode } from '../transaction-options.js';
import { innermostOn } from '../unit/nesting.js';

/** So many different statements are told of: a log is not the place for what a program does all day. */
const TOLD_AT_MOST = 100;

const OUTSIDE =
  'It goes to the pool and is no part of the transaction: it is not rolled back with it, not repeated with it, and waits for a second connection. ' +
  'Use the manager of the transaction (currentTransaction().manager, @TransactionManager()) for it, ' +
  "or have repositories join: TransactionsModule.forRoot({ repositories: 'join' }). What is meant to stay outside is run by outsideTransaction().";
const FOREIGN =
  'It is sent by a QueryRunner or a manager of somebody else: one of another unit of work, or one that was made before this one began. ' +
  'Use repositories and the DataSource as they are, or currentTransaction().manager. What is meant to stay outside is run by outsideTransaction().';

/** Tells of TypeORM queries that are sent outside of the unit of work which the code that sends them runs in. */
export class PoolQueryGuard implements EntitySubscriberInterface {
  private readonly logger = new Logger('Transactions');
  private readonly told = new Set<string>();

  private constructor(
    private readonly dataSource: DataSource,
    private readonly mode: () => RepositoryMode,
  ) {
    isIndifferent(this);
  }

  /** Watches the queries of `dataSource`, also once it has connected anew, which makes its list of subscribers anew. */
  static watch(dataSource: DataSource, mode: () => RepositoryMode): PoolQueryGuard {
    const guard = new PoolQueryGuard(dataSource, mode);
    let subscribers = [...dataSource.subscribers, guard];
    Object.defineProperty(dataSource, 'subscribers', {
      configurable: true,
      enumerable: true,
      get: () => subscribers,
      set: (others: typeof subscribers) =>
        (subscribers = [...others.filter((each) => each !== guard), guard]),
    });
    return guard;
  }

  beforeQuery({ manager, query }: BeforeQueryEvent): void {
    const context = innermostOn(this.dataSource);
    if (context && context.manager.queryRunner !== manager.queryRunner) this.tell(context.id, query);
  }

  /** @throws TransactionUsageError where such a query is an error */
  tell(unit: string, query: string): void {
    const mode = this.mode();
    if (mode === 'off') return;
    const text = query.slice(0, 200);
    const advice = mode === 'join' ? FOREIGN : OUTSIDE;
    const message = `A query inside of the unit of work ${unit} does not use its connection: ${text}. ${advice}`;
    if (mode !== 'warn') throw new TransactionUsageError(message);
    if (this.told.has(text) || this.told.size >= TOLD_AT_MOST) return;
    this.told.add(text);
    this.logger.warn(message);
  }
}
