import type { DataSource } from 'typeorm';
import { KnownServer } from '../../database/known-server.js';
import { preparedName } from '../../database/prepared-name.js';
import { assigningTicketQuery, ticketQuery, type TransactionIds } from '../../database/transaction-ids.js';

/** What is remembered of a transaction before COMMIT, to ask for its outcome afterwards. */
export interface CommitTicket {
  /** PostgreSQL's transaction id (xid8); null when the transaction had written nothing. */
  xid: string | null;
  /**
   * Names the server's life between two crash recoveries, and between two promotions of a standby. Both may forget ids that had
   * been given out, and give them to other transactions: what `pg_xact_status` says of an id then need not be about ours.
   */
  incarnation: string;
}

/** The ticket of one transaction, as far as its statements have let it be known: an id is given with the first write. */
export class KnownTicket {
  private latest: CommitTicket | undefined;
  /** False while something was sent that may have written without the ticket knowing. */
  private isCertain = false;

  constructor(
    private readonly dataSource: DataSource,
    /** False where the server is not to be asked. */
    private readonly isTracked: boolean,
    /** True to have an id given at once, see `SessionOptions.assignsXid`. */
    private readonly isAssigned: boolean,
  ) {}

  /** What to ask the server for after a lost COMMIT; undefined where it can't be asked. */
  get known(): CommitTicket | undefined {
    return this.isCertain ? this.latest : undefined;
  }

  /** True where a write now would get an id that nobody has asked for yet. */
  get lacksXid(): boolean {
    return this.isTracked && !this.latest?.xid;
  }

  /** True where it has to be asked for before COMMIT. */
  get isDue(): boolean {
    return this.isTracked && !this.isCertain;
  }

  /** What to ask behind a statement. */
  get question(): { name: string; text: string } {
    return ticketStatement(this.dataSource, this.isAssigned ? assigningTicketQuery : ticketQuery);
  }

  /** @param column what the question gave */
  learn(column: string | null): void {
    this.latest = readTicket(column);
    this.isCertain = true;
  }

  /** A statement was sent without the question: it may have been the first to write. */
  doubt(): void {
    this.isCertain &&= this.latest?.xid != null;
  }
}

interface Question {
  name: string;
  text: string;
  /** For which it was made. */
  ids: TransactionIds | false | undefined;
}

const questions = new Map(
  [ticketQuery, assigningTicketQuery].map((query) => [query, new WeakMap<DataSource, Question>()]),
);

/** The question for the server of a DataSource, to be prepared. */
function ticketStatement(dataSource: DataSource, query: typeof ticketQuery): Question {
  const known = questions.get(query)!;
  const { transactionIds: ids } = KnownServer.of(dataSource);
  const before = known.get(dataSource);
  if (before && before.ids === ids) return before;
  const text = query(dataSource.driver.version ?? '', ids || undefined);
  const question = { name: preparedName('nestjs_people_ticket', text), text, ids };
  known.set(dataSource, question);
  return question;
}

/** What `ticketQuery` gave, taken apart. */
export function readTicket(column: string | null): CommitTicket {
  const [xid, incarnation = ''] = (column ?? '').split('/');
  return { xid: xid === '' || xid === undefined ? null : xid, incarnation };
}
