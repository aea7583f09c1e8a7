import { readFileSync } from 'node:fs';
import { Mail, Post, Posts } from '../../examples/migrating.js';
import { TransactionUsageError } from '../../src/transactions/transaction-errors.js';
import { duringTests } from '../support/during-tests.js';
import { startTransactionsHost } from '../support/transactions-host.js';

/** Whom readers were told of. */
const told: string[] = [];
const host = duringTests(() =>
  startTransactionsHost({
    providers: [Posts, { provide: Mail, useValue: { published: (id: string) => told.push(id) } }],
    settings: { repositories: 'join', isolationLevel: 'SERIALIZABLE' },
    dataSource: { entities: [Post], synchronize: true },
  }),
);
const published = async () => {
  const rows = await host.database.query<Post>('SELECT id FROM posts WHERE published ORDER BY id');
  return rows.map(({ id }) => id);
};

it('what the document shows of code that comes after is code that is run here', () => {
  const source = readFileSync('examples/migrating.ts', 'utf8').replace(/^ +/gm, '');
  const document = readFileSync('docs/migrating.md', 'utf8');
  const blocks = [...document.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, block]) => block!);
  expect(blocks.length).toBeGreaterThan(4);
  const pieces = blocks.flatMap((block) => block.replace(/^ +/gm, '').split('…\n'));
  expect(pieces.filter((piece) => !source.includes(piece.trim()))).toEqual([]);
});

it('the code does what the document says of it', async () => {
  const posts = host.app.get(Posts);
  await posts.importAll(['a', 'b']);
  expect(await published()).toEqual(['a', 'b']);
  await host.database.query('UPDATE posts SET published = false');
  await expect(posts.publishAll(['a', 'absent'])).rejects.toThrow(/Post/);
  expect([await published(), told]).toEqual([[], []]);
  await posts.publishAll(['a', 'b']);
  expect([await published(), told]).toEqual([['a', 'b'], ['a', 'b']]); // prettier-ignore
  expect(await posts.publishIfItCan('absent')).toBe(false);
  expect(await posts.countTwice()).toEqual([4, 3]);
  await expect(posts.importAll(['c', 'c'])).rejects.not.toBeInstanceOf(TransactionUsageError);
  expect(await published()).toEqual(['a', 'b']);
});
