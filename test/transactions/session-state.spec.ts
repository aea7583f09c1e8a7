import { advance, type Event, SessionState, type State } from '../../src/transactions/session/state.js';

const failure = new Error('COMMIT failed');
const ALL: Event[] = [
  'begun',
  'start work',
  'end work',
  'commit',
  'send COMMIT',
  'skip COMMIT',
  'confirm COMMIT',
  { failedCommit: failure },
  'roll back',
  'close',
];

/** The state that each event leads to, of those that may come; the server's answer to BEGIN, and the end, may come always. */
const TRANSITIONS: [State, [Event, State['is']][]][] = [
  [
    { is: 'starting', hasBegun: false },
    [
      ['start work', 'working'],
      ['end work', 'ending'],
    ],
  ],
  [{ is: 'working', hasBegun: true }, [['end work', 'ending']]],
  [
    { is: 'ending', hasBegun: true },
    [
      ['commit', 'committing'],
      ['roll back', 'rolled back'],
    ],
  ],
  [
    { is: 'committing', hasBegun: true, isSent: true },
    [
      ['send COMMIT', 'committing'],
      ['skip COMMIT', 'committing'],
      ['confirm COMMIT', 'committed'],
      [{ failedCommit: failure }, 'commit failed'],
    ],
  ],
  [{ is: 'commit failed', hasBegun: true, isSent: true, failure }, [['roll back', 'rolled back']]],
  [{ is: 'committed', hasBegun: true }, []],
  [{ is: 'rolled back', hasBegun: true }, []],
  [{ is: 'closed', hasBegun: true }, []],
];

it.each(TRANSITIONS)(
  'lets a session that is %j go on as its table says, and not otherwise',
  (state, next) => {
    const allowed = new Map<Event, State['is']>([...next, ['begun', state.is], ['close', 'closed']]);
    for (const event of ALL) {
      const is = [...allowed].find(([each]) => JSON.stringify(each) === JSON.stringify(event))?.[1];
      if (is) expect(advance(state, event).is).toBe(is);
      else expect(() => advance(state, event)).toThrow(`A transaction that is ${state.is}`);
    }
  },
);

it('remembers of a COMMIT that failed whether it was sent', () => {
  const committing: State = { is: 'committing', hasBegun: true, isSent: false };
  const sent = advance(committing, 'send COMMIT');
  expect(advance(sent, { failedCommit: failure })).toMatchObject({ isSent: true, failure });
  expect(advance(advance(sent, 'skip COMMIT'), { failedCommit: failure })).toMatchObject({ isSent: false });
});

it('knows that BEGIN was answered also where the answer comes behind the end of the work', () => {
  const state = new SessionState();
  for (const event of ['end work', 'roll back', 'begun'] as const) state.on(event);
  expect(state.now).toEqual({ is: 'rolled back', hasBegun: true });
  expect(state.isOpen).toBe(false);
});
