/** Named here, and skipped as a whole with KAFKA=off, which the end of the run then says. */
const NEEDS_KAFKA = String.raw`\.kafka\.spec\.ts$`;
const withoutKafka = process.env.KAFKA === 'off';
if (withoutKafka)
  process.on('exit', () =>
    console.error(
      `KAFKA=off: the tests in **/*.kafka.spec.ts and those of the embedded Kafka were left out.`,
    ),
  );

/** @type {import('jest').Config} */
export default {
  testEnvironment: 'node',
  cacheDirectory: '<rootDir>/node_modules/.cache/jest',
  globalSetup: '<rootDir>/test/support/global-setup.mjs',
  globalTeardown: '<rootDir>/test/support/global-teardown.mjs',
  testRegex: String.raw`test/.*\.spec\.ts$`,
  testPathIgnorePatterns: ['/node_modules/', ...(withoutKafka ? [NEEDS_KAFKA] : [])],
  modulePathIgnorePatterns: ['<rootDir>/dist/', '<rootDir>/.data/', '<rootDir>/examples/', '<rootDir>/.ci/'],
  // One worker a run (see test/support/run.mjs): its files share one PostgreSQL and one Kafka, whose topic names are fixed.
  maxWorkers: 1,
  testTimeout: 60_000,
  extensionsToTreatAsEsm: ['.ts'],
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  // Jest on Node 20 can't require() an ES module, as @fastify/static does with this one.
  transformIgnorePatterns: ['/node_modules/(?!(@fastify/static/node_modules/)?content-disposition/)'],
  transform: {
    'content-disposition/.*\\.js$': [
      '@swc/jest',
      { module: { type: 'commonjs' }, jsc: { target: 'es2022' } },
    ],
    '^.+\\.ts$': [
      '@swc/jest',
      {
        module: { type: 'es6' },
        jsc: {
          target: 'es2022',
          parser: { syntax: 'typescript', decorators: true },
          transform: { legacyDecorator: true, decoratorMetadata: true, useDefineForClassFields: false },
          keepClassNames: true,
        },
      },
    ],
  },
};
