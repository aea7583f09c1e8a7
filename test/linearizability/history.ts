/** What is asked of one person. Each name is written once, so that a name says which write it is of. */
export type Call =
  | { kind: 'get' }
  | { kind: 'create'; name: string }
  /** `over`: the name that the version of `If-Match` belongs to. */
  | { kind: 'update'; name: string; over?: string | undefined }
  | { kind: 'remove'; over?: string | undefined };

/**
 * What was answered: the person was there with this name; it was not there; it was another one than `If-Match` says; its id was
 * taken; it was done; or nobody knows, and it may be done at any time from then on, or never.
 */
export type Outcome =
  | { is: 'found'; name: string }
  | { is: 'missing' | 'changed' | 'taken' | 'done' | 'unknown' }
  // Only `withLostAnswers` says so.
  | { is: 'gone' | 'done again' };

/** One call and its answer, by the clock that all clients share. */
export interface Operation {
  person: string;
  call: Call;
  outcome: Outcome;
  calledAt: number;
  /** Infinity where nobody knows what became of it. */
  answeredAt: number;
  /** Who asked whom, for the reader of a violation. */
  client: string;
}

/** A person as a register: the name that is stored, or null where there is none. */
export type State = string | null;

/** The states that there may be after an operation, were it done now; none where it could not have been answered so. */
export function statesAfter(state: State, { call, outcome }: Operation): readonly State[] {
  switch (outcome.is) {
    case 'found':
      return state === outcome.name ? [state] : [];
    case 'missing':
      return state === null ? [state] : [];
    case 'taken':
      return state === null ? [] : [state];
    case 'changed':
      return state === null || state === overOf(call) ? [] : [state];
    case 'gone':
      return [...effect(state, call), ...(state === null ? [state] : [])];
    case 'done again':
      return [...effect(state, call), state];
    case 'done':
    case 'unknown':
      return effect(state, call);
  }
}

/** Empty where it would not be done. */
function effect(state: State, call: Call): readonly State[] {
  if (call.kind === 'get') return [state];
  if (call.kind === 'create') return state === null ? [call.name] : [];
  const isMatched = state !== null && (call.over === undefined || call.over === state);
  if (!isMatched) return [];
  return [call.kind === 'update' ? call.name : null];
}

/**
 * The history as it may have been where instances do not hear what became of their own statements, because an answer was lost or a
 * session has ended. They look, and do again what is harmless to do again, before they answer: a person that is gone is removed,
 * whoever has done it; and a create is repeated under its id, which stores the person once more where somebody has removed it meanwhile.
 */
export function withLostAnswers(history: readonly Operation[]): Operation[] {
  return history.flatMap((operation): Operation[] => {
    const { call, outcome } = operation;
    if (call.kind === 'remove' && outcome.is === 'done') return [{ ...operation, outcome: { is: 'gone' } }];
    if (call.kind === 'create' && outcome.is === 'done')
      return [operation, { ...operation, outcome: { is: 'done again' } }];
    return [operation];
  });
}

const overOf = (call: Call) => ('over' in call ? call.over : undefined);

/** One line for people. */
export function describe({ person, call, outcome, calledAt, answeredAt, client }: Operation): string {
  const over = overOf(call) === undefined ? '' : ` over ${overOf(call)}`;
  const what = 'name' in call ? `${call.kind} ${call.name}${over}` : `${call.kind}${over}`;
  const answer = outcome.is === 'found' ? `found ${outcome.name}` : outcome.is;
  return `${calledAt.toFixed(1)}–${answeredAt.toFixed(1)} ms, ${client}: ${what} of ${person.slice(0, 8)}: ${answer}`;
}
