import { blocksOf, chapters, runSteps, sourcesOf, steps } from '../support/guide.js';

const onPostgresAlone = chapters.filter((chapter) => !chapter.endsWith('kafka'));
let printed: Map<string, string>;

beforeAll(async () => {
  printed = await runSteps([], { DATABASE_URL: process.env.TEST_DATABASE_URL!, KAFKA_BROKERS: '' });
}, 110_000);

it('every chapter of the guide has a step that runs, and every step a chapter', () => {
  expect(chapters.length).toBeGreaterThan(10);
  expect(chapters).toEqual(steps);
});

it.each(chapters)('what %s shows of code is code that runs', (chapter) => {
  const sources = sourcesOf(chapter);
  const blocks = blocksOf(chapter, 'ts');
  expect(blocks.length).toBeGreaterThan(0);
  expect(blocks.filter((block) => !sources.some((source) => source.includes(block)))).toEqual([]);
});

it.each(onPostgresAlone)('%s prints what the chapter says, line by line', (chapter) => {
  expect(blocksOf(chapter, 'text').join('')).toBe(printed.get(chapter));
});
