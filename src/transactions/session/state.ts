/**
 * What has become of the transaction of one attempt.
 *
 * | state           | what it means                                                          | what may be sent |
 * |-----------------|------------------------------------------------------------------------|------------------|
 * | `starting`      | TypeORM is told to begin; its BEGIN waits for the first statement      | statements |
 * | `working`       | the work runs                                                          | statements |
 * | `ending`        | the work is over, or asks for COMMIT; TypeORM's subscribers are told   | statements, COMMIT or ROLLBACK by TypeORM |
 * | `committing`    | COMMIT was asked for; `isSent`: it is on its way, and may be done      | nothing more by the work |
 * | `commit failed` | COMMIT has failed; `isSent`: it may be done all the same               | nothing |
 * | `committed`     | the server has said so, or there was nothing to commit                 | nothing |
 * | `rolled back`   | nothing of it is left on the server, or its connection is being closed | nothing |
 * | `closed`        | the connection was given back                                          | nothing |
 *
 * `hasBegun`: the server has answered BEGIN. It may do so in any of them, also for a statement that the work did not await.
 */
export type State = { readonly hasBegun: boolean } & (
  | { readonly is: 'starting' | 'working' | 'ending' }
  | { readonly is: 'committing'; readonly isSent: boolean }
  | { readonly is: 'commit failed'; readonly isSent: boolean; readonly failure: unknown }
  | { readonly is: 'committed' | 'rolled back' | 'closed' }
);

export type Event =
  | 'begun'
  | 'start work'
  | 'end work'
  | 'commit'
  | 'send COMMIT'
  /** COMMIT was not done for sure: what travelled ahead of it was refused by the server, or could not be sent. */
  | 'skip COMMIT'
  | 'confirm COMMIT'
  | { failedCommit: unknown }
  | 'roll back'
  | 'close';

/** The only place where a state changes. @throws Error the event can't come in this state */
export function advance(state: State, event: Event): State {
  const { is, hasBegun } = state;
  if (event === 'begun') return { ...state, hasBegun: true };
  if (event === 'close') return { is: 'closed', hasBegun };
  if (event === 'start work' && is === 'starting') return { is: 'working', hasBegun };
  if (event === 'end work' && (is === 'starting' || is === 'working')) return { is: 'ending', hasBegun };
  if (event === 'commit' && is === 'ending') return { is: 'committing', hasBegun, isSent: false };
  if (event === 'roll back' && (is === 'ending' || is === 'commit failed'))
    return { is: 'rolled back', hasBegun };
  if (is === 'committing') {
    if (event === 'send COMMIT') return { is, hasBegun, isSent: true };
    if (event === 'skip COMMIT') return { is, hasBegun, isSent: false };
    if (event === 'confirm COMMIT') return { is: 'committed', hasBegun };
    if (typeof event === 'object')
      return { is: 'commit failed', hasBegun, isSent: state.isSent, failure: event.failedCommit };
  }
  throw new Error(`A transaction that is ${is} got the event ${JSON.stringify(event)}.`);
}

/** The state that the parts of a session share. */
export class SessionState {
  private state: State = { is: 'starting', hasBegun: false };

  get now(): State {
    return this.state;
  }

  get hasBegun(): boolean {
    return this.state.hasBegun;
  }

  /** True while the work, or TypeORM around it, may send statements. */
  get isOpen(): boolean {
    const { is } = this.state;
    return is === 'starting' || is === 'working' || is === 'ending';
  }

  on(event: Event): void {
    this.state = advance(this.state, event);
  }
}
