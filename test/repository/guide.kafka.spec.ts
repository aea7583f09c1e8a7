import { blocksOf, chapters, runSteps } from '../support/guide.js';

it('the step about Kafka prints what its chapter says, line by line', async () => {
  const chapter = chapters.find((name) => name.endsWith('kafka'))!;
  const printed = await runSteps([chapter], {
    DATABASE_URL: process.env.TEST_DATABASE_URL!,
    KAFKA_BROKERS: process.env.TEST_KAFKA_BROKERS!,
  });
  expect(blocksOf(chapter, 'text').join('')).toBe(printed.get(chapter));
});
