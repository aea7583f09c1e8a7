/** People that exist before the run. */
export const SEEDED = 10_000;

/** The id of seeded person number `n`: every process can work it out, nobody has to be told ten thousand ids. */
export const seededId = (n) => `00000000-0000-7000-8000-${n.toString(16).padStart(12, '0')}`;

/** Person number `n`, always the same, with about 230 bytes of JSON: strings, whole numbers, a list, an object. */
export const personOf = (n) => ({
  name: `Person ${n}`,
  data: {
    number: n,
    email: `person-${n}@example.com`,
    active: n % 3 !== 0,
    address: { street: `Long Lane ${n % 200}`, city: 'Springfield', postcode: `AB ${1000 + (n % 9000)}` },
    tags: ['newsletter', 'early-bird', `group-${n % 50}`],
    note: 'Prefers to be called in the morning.',
  },
});

export const anyNumber = () => Math.floor(Math.random() * SEEDED);
