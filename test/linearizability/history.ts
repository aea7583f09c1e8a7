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
  { is: 'found'; name: string } | { is: 'missing' | 'changed' | 'taken' | 'done' | 'unknown' };

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

/** The state after an operation, were it done now; undefined where it could not have been answered so. */
export function step(state: State, { call, outcome }: Operation): State | undefined {
  switch (outcome.is) {
    case 'found':
      return state === outcome.name ? state : undefined;
    case 'missing':
      return state === null ? state : undefined;
    case 'taken':
      return state === null ? undefined : state;
    case 'changed':
      return state === null || state === overOf(call) ? undefined : state;
    case 'done':
    case 'unknown':
      return effect(state, call);
  }
}

function effect(state: State, call: Call): State | undefined {
  if (call.kind === 'get') return state;
  if (call.kind === 'create') return state === null ? call.name : undefined;
  const isMatched = state !== null && (call.over === undefined || call.over === state);
  if (!isMatched) return undefined;
  return call.kind === 'update' ? call.name : null;
}

const overOf = (call: Call) => ('over' in call ? call.over : undefined);

/** One line for people. */
export function describe({ person, call, outcome, calledAt, answeredAt, client }: Operation): string {
  const over = overOf(call) === undefined ? '' : ` over ${overOf(call)}`;
  const what = 'name' in call ? `${call.kind} ${call.name}${over}` : `${call.kind}${over}`;
  const answer = outcome.is === 'found' ? `found ${outcome.name}` : outcome.is;
  return `${calledAt.toFixed(1)}–${answeredAt.toFixed(1)} ms, ${client}: ${what} of ${person.slice(0, 8)}: ${answer}`;
}
