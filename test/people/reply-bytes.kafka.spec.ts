import { duringTests } from '../support/during-tests.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';

const peer = duringTests(() => new KafkaPeer());
const app = duringTests(() => startKafkaApp(peer, { PEOPLE_EVENTS: 'off', KAFKA_MAX_REPLY_BYTES: '5000' }));

it('KAFKA_MAX_REPLY_BYTES says how many bytes a page has as a reply, and all people are on the pages', async () => {
  const data = JSON.stringify({ text: 'x'.repeat(1000) });
  await app.database.query('INSERT INTO people (name, data) SELECT $1, $2 FROM generate_series(1, 10)', ['Many', data]); // prettier-ignore
  const pages: number[] = [];
  for (let cursor: string | null | undefined; cursor !== null;) {
    const { value } = await peer.ask(
      'people.find-by-name',
      JSON.stringify({ name: 'Many', ...(cursor && { cursor }) }),
    );
    expect(Buffer.byteLength(value!)).toBeLessThanOrEqual(5000);
    const page = JSON.parse(value!) as { items: unknown[]; next: string | null };
    pages.push(page.items.length);
    cursor = page.next;
  }
  expect(pages).toEqual([4, 4, 2]);
});
