import { AsyncResource } from 'node:async_hooks';
import { startStatementSpan } from '../../tracing/statement-spans.js';
import { TransactionUsageError } from '../transaction-errors.js';
import type { SessionConnection } from './connection.js';
import type { StatementSender } from './sender.js';
import type { Submittable } from './statements.js';
import type { StatementTurns } from './turns.js';

/** How long a statement waits for a stream that tells nothing. */
const STANDSTILL_MS = 30_000;
const STANDSTILL = `A statement has waited for ${STANDSTILL_MS} ms for the COPY or the cursor before it, which nobody has read or written meanwhile: come to its end before you send others, or send them in outsideTransaction().`;

/** The COPYs and cursors of a session: pg gives them back at once, and whoever has them reads or writes them at leisure. */
export class Streams {
  private unended = 0;
  /** So often has one of them told something. */
  private progress = 0;

  constructor(
    private readonly connection: SessionConnection,
    private readonly sender: StatementSender,
    private readonly turns: StatementTurns,
    private readonly isTraced: boolean,
  ) {}

  /** True while one is not at its end. */
  get areOpen(): boolean {
    return this.unended > 0;
  }

  /**
   * Waits with a statement behind a stream, as long as somebody reads or writes that: who waits for the statement in between would
   * wait for ever.
   *
   * @param send is to ask, when the turn has come, whether the statement was refused meanwhile
   * @throws TransactionUsageError the stream stands still
   */
  behind<T>(send: (assertWanted: () => void) => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      let refusal: Error | undefined;
      const look = (before: number) => {
        if (this.areOpen && this.progress !== before) timer = setTimeout(look, STANDSTILL_MS, this.progress);
        else if (this.areOpen) reject((refusal = new TransactionUsageError(STANDSTILL)));
      };
      let timer = setTimeout(look, STANDSTILL_MS, this.progress);
      send(() => {
        clearTimeout(timer);
        if (refusal) throw refusal;
      }).then(resolve, reject);
    });
  }

  /**
   * Sends it when its turn has come, which lasts until its end.
   *
   * @param assertOpen throws when the attempt is over by then
   */
  submit(submittable: Submittable, assertOpen: () => void): Submittable {
    const { connection, sender } = this;
    const turn = this.turns.take();
    this.unended++;
    tellItsReader(submittable, () => this.progress++);
    let isSent = false;
    let endSpan: ReturnType<typeof startStatementSpan> | undefined;
    // pg tells a query its end by these.
    const { handleReadyForQuery, handleError } = submittable;
    submittable.handleReadyForQuery = (wire) => {
      this.unended--;
      turn.done();
      endSpan?.();
      handleReadyForQuery?.call(submittable, wire);
    };
    submittable.handleError = (error, wire) => {
      this.unended--;
      // What comes next waits until it is known whether the connection lives on.
      if (isSent) void connection.learn(error).finally(turn.done);
      else turn.done();
      endSpan?.(error);
      sender.firstFailure ??= connection.explain(error);
      handleError.call(submittable, error, wire);
    };
    const send = async () => {
      await turn.come;
      assertOpen();
      await sender.begin();
      sender.ticket.doubt();
      isSent = true;
      if (this.isTraced) endSpan = startStatementSpan(textOf(submittable), connection.client);
      connection.client.query(submittable as never);
    };
    send().catch((error: unknown) => submittable.handleError(error as Error));
    return submittable;
  }
}

/** By which COPYs and cursors come to whoever reads or writes them. */
const TELLING = [
  'emit',
  'handleReadyForQuery',
  'handleCommandComplete',
  'handlePortalSuspended',
  'handleError',
] as const;

/** What comes of it comes from the socket, which belongs to nobody: those who listen are in the unit of work that asked for it. */
function tellItsReader(submittable: Submittable, onTold: () => void): void {
  const place = new AsyncResource('nestjs-people:stream');
  const telling = submittable as unknown as Partial<Record<string, (...told: unknown[]) => unknown>>;
  for (const name of TELLING) {
    const tell = telling[name];
    if (tell)
      telling[name] = (...told) => {
        onTold();
        return place.runInAsyncScope(() => tell.apply(submittable, told));
      };
  }
}

/** Those of pg-copy-streams and pg-cursor have it. */
function textOf(submittable: object): string {
  const { text } = submittable as { text?: unknown };
  return typeof text === 'string' ? text : 'QUERY';
}
