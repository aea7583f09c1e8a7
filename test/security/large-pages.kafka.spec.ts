import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';

const peer = duringTests(() => new KafkaPeer());
const app = duringTests(() => startKafkaApp(peer, { PEOPLE_EVENTS: 'off' }));

interface Page {
  items: { id: string }[];
  next: string | null;
}

it.each([
  ['of 12 kB each', 100, 'x', 12_000],
  ['of 500 kB each', 5, 'x', 500_000],
  ['of 880 kB each', 2, 'x', 880_000],
  // Six bytes of an answer for each of the table's.
  ['with names that JSON escapes', 300, '\u0001', 1000],
])(
  'a page of people.find-by-name, %s, fits a message, and the next follows',
  async (_, count, letter, bytes) => {
    await app.database.query('TRUNCATE people');
    const name = letter === 'x' ? 'Big' : letter.repeat(bytes);
    const data = letter === 'x' ? JSON.stringify({ text: letter.repeat(bytes) }) : null;
    await app.database.query('INSERT INTO people (name, data) SELECT $1, $2 FROM generate_series(1, $3)', [name, data, count]); // prettier-ignore
    const ids: string[] = [];
    for (let cursor: string | null | undefined; cursor !== null;) {
      const asked = { name, limit: 1000, ...(cursor && { cursor }) };
      const { value, error } = await peer.ask('people.find-by-name', JSON.stringify(asked));
      expect(error).toBeUndefined();
      expect(Buffer.byteLength(value!)).toBeLessThanOrEqual(900_000);
      const page = JSON.parse(value!) as Page;
      ids.push(...page.items.map(({ id }) => id));
      cursor = page.next;
    }
    const rows = await app.database.query<{ id: string }>('SELECT id FROM people ORDER BY id');
    expect(ids).toEqual(rows.map(({ id }) => id));
  },
);

it('a person that is larger than a reply may be is told as an error, and others are answered', async () => {
  await app.database.query('TRUNCATE people');
  const insert = `INSERT INTO people (name, data) VALUES ($1, json_build_object('text', repeat('x', $2))) RETURNING id`;
  const [large] = await app.database.query<{ id: string }>(insert, ['Large', 1024 * 1024]);
  await app.database.query(insert, ['Small', 10]);
  for (const [topic, asked] of [
    ['people.get', { id: large!.id }],
    ['people.find-by-name', { name: 'Large', limit: 1 }],
  ] as const) {
    const { error } = await peer.ask(topic, JSON.stringify(asked));
    expect(error).toMatchObject({ code: 'REPLY_TOO_LARGE', retryable: false });
    expect((error as { message: string }).message).toContain('smaller limit');
    const { value } = await peer.ask('people.find-by-name', '{"name":"Small"}');
    expect((JSON.parse(value!) as Page).items).toHaveLength(1);
  }
});
