/** Nest 11 is CommonJS. Jest can not require() the ES modules beside it on Node before 24.9, so they are made CommonJS for it. */
module.exports = {
  testEnvironment: 'node',
  testRegex: 'test/.*\\.spec\\.ts$',
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  transformIgnorePatterns: ['/node_modules/(?!(nestjs-people|uuid)/)'],
  transform: {
    '\\.ts$': 'ts-jest',
    '\\.js$': ['@swc/jest', { module: { type: 'commonjs' }, jsc: { target: 'es2022' } }],
  },
};
