/** People that exist before the run. */
export const SEEDED = 10_000;

/** The id of seeded person number `n`: every process can work it out, nobody has to be told ten thousand ids. */
export const seededId = (n) => `00000000-0000-7000-8000-${n.toString(16).padStart(12, '0')}`;
/** The id of person number `n` of those that are there to be removed. */
export const removableId = (n) => `00000000-0000-7001-8000-${n.toString(16).padStart(12, '0')}`;

/** The article's `u64` in the data of person number `n`: twenty digits, of which a JavaScript number keeps sixteen. */
export const u64Of = (n) => 18446744073709551615n - BigInt(n);

/**
 * Person number `n`, always the same, with about 270 bytes of JSON: a u64, strings, whole numbers, a list, an object.
 *
 * @param exact false: the u64 is the nearest number, for whoever takes no bigint
 */
export const personOf = (n, { exact = true } = {}) => ({
  name: `Person ${n}`,
  data: {
    many_many_fields: exact ? u64Of(n) : Number(u64Of(n)),
    number: n,
    email: `person-${n}@example.com`,
    active: n % 3 !== 0,
    address: { street: `Long Lane ${n % 200}`, city: 'Springfield', postcode: `AB ${1000 + (n % 9000)}` },
    tags: ['newsletter', 'early-bird', `group-${n % 50}`],
    note: 'Prefers to be called in the morning.',
  },
});

/** JSON with every digit of a bigint, which JSON.stringify refuses. */
export function toJson(value) {
  if (typeof value === 'bigint') return value.toString();
  if (Array.isArray(value)) return `[${value.map(toJson).join()}]`;
  // What has a JSON of its own (as a date) is left to JSON.stringify.
  if (typeof value !== 'object' || value === null || typeof value.toJSON === 'function')
    return JSON.stringify(value);
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${toJson(member)}`).join()}}`;
}

/** The JSON of person number `n`'s data. */
export const dataJsonOf = (n) => toJson(personOf(n).data);

export const anyNumber = () => Math.floor(Math.random() * SEEDED);
