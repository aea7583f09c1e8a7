/** For Node before 24.9, on which Jest can not require() an ES module as Node itself does: they are made CommonJS for it. */
module.exports = {
  testEnvironment: 'node',
  testRegex: 'test/.*\\.spec\\.ts$',
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  transformIgnorePatterns: [],
  transform: {
    '\\.ts$': ['@swc/jest', swc({ syntax: 'typescript', decorators: true })],
    '\\.m?js$': ['@swc/jest', swc({ syntax: 'ecmascript' })],
  },
};

function swc(parser) {
  const transform = { legacyDecorator: true, decoratorMetadata: true, useDefineForClassFields: false };
  return { module: { type: 'commonjs' }, jsc: { target: 'es2022', keepClassNames: true, parser, transform } };
}
