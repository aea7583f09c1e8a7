// messaging/replaying/: Windows of topics that are read again and handled through the inbox, beside the group that reads them.
// Promises: what was applied is not applied again; the group's members and offsets are left alone; one at a time, bounded.
// May know: consuming/ for how messages are handled, and the port for how records are read.

import { ApplicationError, InvalidInputError, unchanged } from '../../errors/application-error.js';
import type { RecordWindow, WindowReader } from '../kafka-driver.js';
import { type Replay, replayStatements } from './replay.statements.js';
import { WindowRun, type WindowReplaysSettings } from './window-run.js';

/** Another window is being replayed for the group, by this or another instance. HTTP 409. */
export class ReplayRunningError extends ApplicationError {
  constructor() {
    super(unchanged('Another window is being replayed', 'wait for its end, or cancel it'), {
      type: 'replay-running',
      status: 409,
    });
  }
}

/** There is no replay of this id that runs. HTTP 404. */
export class ReplayNotFoundError extends ApplicationError {
  constructor(id: string) {
    super(`No replay ${id} is running.`, { type: 'replay-not-found', status: 404 });
  }
}

/** Messages are not read here, or the brokers can't be reached. HTTP 503. */
export class ReplayUnavailableError extends ApplicationError {
  constructor(reason: string, options?: ErrorOptions) {
    super(
      unchanged(`No window can be replayed now: ${reason}`),
      { type: 'replay-unavailable', status: 503, retryable: true },
      options,
    );
  }
}

/** More are a matter of several windows. */
const RECORDS_AT_MOST = 1_000_000;
/** What a batch of messages may take, however long the database is away. */
const MARGIN_MS = 10 * 60_000;

/** Replays windows of topics, one at a time, and keeps in the store how far each is: any instance can tell, and cancel. */
export class WindowReplays {
  private readonly statements: ReturnType<typeof replayStatements>;
  private run: WindowRun | undefined;
  private isStopped = false;

  constructor(private readonly settings: WindowReplaysSettings) {
    this.statements = replayStatements(settings.store.transactions.dataSource, settings.consumer);
  }

  /**
   * Asks the brokers where a window is; to be begun, or closed.
   *
   * @throws InvalidInputError the window is empty, too long, older than what is remembered, or of a topic that nobody handles
   * @throws ReplayUnavailableError
   */
  async find(window: RecordWindow): Promise<WindowReader> {
    const { driver, limits, consumer: groupId, hasHandler } = this.settings;
    this.check(window);
    if (!hasHandler(window.topic)) throw refused('topic', 'is none that messages are handled of here');
    const readWindow = driver()?.readWindow?.bind(driver());
    if (!readWindow || this.isStopped) throw new ReplayUnavailableError('messages are not read here');
    const reader = await readWindow(window, { groupId, limits }).catch((cause: unknown) => {
      throw new ReplayUnavailableError('the brokers do not tell where it is', { cause });
    });
    if (reader.records <= RECORDS_AT_MOST) return reader;
    reader.close();
    throw refused(
      'to',
      `must be earlier: there are ${reader.records} records, and ${RECORDS_AT_MOST} at most are replayed at once`,
    );
  }

  /**
   * Begins to replay a window once the unit of work around this is committed: whatever was applied is left as it is. Messages that
   * asked for a reply are left out, as their senders were told what became of them.
   *
   * @returns its id
   * @throws ReplayRunningError
   */
  begin(window: RecordWindow, reader: WindowReader, actor: string): Promise<string> {
    const { transactions } = this.settings.store;
    return transactions.run({ isolationLevel: 'READ COMMITTED' }, async (transaction) => {
      await transaction.query(this.statements.giveUp());
      const { rows } = await transaction.query<{ id: string }>(this.statements.begin(window, actor));
      if (!rows[0]) throw new ReplayRunningError();
      const { id } = rows[0];
      transaction.afterCommit(() => {
        const isRemembered = () => this.isRemembered(window.from);
        this.run = new WindowRun({ ...this.settings, id, reader, statements: this.statements, isRemembered });
        this.run.start();
        if (this.isStopped) void this.run.stop();
      });
      return id;
    });
  }

  /** Asks the instance that runs it to end it. @throws ReplayNotFoundError */
  async cancel(id: string): Promise<void> {
    const { transactions } = this.settings.store;
    const { rowCount } = await transactions.runStatement(this.statements.cancel(id), {
      writes: true,
      idempotent: true,
    });
    if (rowCount === 0) throw new ReplayNotFoundError(id);
    if (this.run?.id === id) this.run.cancel();
  }

  /** The last ones, newest first. */
  async list(): Promise<Replay[]> {
    const { transactions } = this.settings.store;
    return (await transactions.runStatement<Replay>(this.statements.list(), { writes: false })).rows;
  }

  /** Ends what runs here, after the messages that are being handled. */
  async stop(): Promise<void> {
    this.isStopped = true;
    await this.run?.stop();
  }

  private check({ from, to }: RecordWindow): void {
    // Also where either is no time at all.
    if (!(from < to)) throw refused('from', 'must be a time before the end of the window');
    if (!this.isRemembered(from))
      throw refused(
        'from',
        `must not be longer ago than it is remembered what was applied, which is ${this.settings.retentionMs} ms`,
      );
  }

  /** Whether it is remembered of all messages from then on that they were applied, and will be for a while. */
  private isRemembered(from: number): boolean {
    const { retentionMs } = this.settings;
    return from >= Date.now() - retentionMs + Math.min(MARGIN_MS, retentionMs / 10);
  }
}

const refused = (field: string, detail: string) =>
  new InvalidInputError(`${field} ${detail}.`, [{ pointer: `#/${field}`, detail }]);
