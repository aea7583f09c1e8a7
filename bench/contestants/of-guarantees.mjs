const guarantee = (key, title, settings) => ({
  key,
  title,
  file: 'contestants/guarantee.mjs',
  settings,
});

/** The first is what the others are compared with: each has or lacks one thing of what it does. */
export const CONTESTANTS = [
  guarantee('alone', 'a statement of its own, which is its transaction', { shares: false }),
  guarantee('shared', 'the same, sharing statements and commits (the default)', { shares: true }),
  guarantee('event', 'alone, with an event row for each change', { shares: false, events: true }),
  guarantee('shared-event', 'shared, with an event row for each change', { shares: true, events: true }),
  guarantee('unit', 'alone, in a unit of work: BEGIN with the statement, then COMMIT', { unit: {} }),
  guarantee('serializable', 'the same, SERIALIZABLE', { unit: { isolationLevel: 'SERIALIZABLE' } }),
  guarantee('outcome-row', 'the same unit, with a row that tells the outcome of its COMMIT', {
    unit: { commitOutcome: 'row' },
  }),
  guarantee('inbox', 'the same unit, with an inbox row and the answer kept', { isOnce: true }),
];
