import tseslint from 'typescript-eslint';

/** A folder may import any folder to its right, never one to its left (see ARCHITECTURE.md). */
export const FOLDERS = [
  'app',
  'operations',
  'people',
  'messaging',
  'transactions',
  'database',
  'tracing',
  'http',
  'json',
  'errors',
];

const importRule = (forbidden, message) => ({
  'no-restricted-imports': ['error', { patterns: [{ group: forbidden, message }] }],
});
const into = (folder) => [`**/${folder}/*`, `**/${folder}/**`];

const importOrder = FOLDERS.map((folder, index) => ({
  files: [`src/${folder}/**/*.ts`],
  rules: importRule(
    [
      ...FOLDERS.slice(0, index).flatMap(into),
      '**/main.js',
      '**/src/index.js',
      './index.js',
      '../index.js',
      ...(folder === 'app' ? [] : into('dev')),
      // What the people on call use works for any feature, so it knows none.
      ...(folder === 'operations' ? into('people') : []),
    ],
    `Imports go one way: main → ${FOLDERS.join(' → ')}; only app imports dev; nothing imports a barrel.`,
  ),
}));

export default tseslint.config(
  { ignores: ['dist/', 'coverage/', '.data/', 'examples/*-host/', 'examples/host-app/', '.ci/recipes/'] },
  ...tseslint.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      // `_` marks a name that only documents a position.
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      // Nest asks for async hooks and providers whether or not they await.
      '@typescript-eslint/require-await': 'off',
    },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      // Answers of the service are read as the JSON they are; their shape is what the test asserts.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
    },
  },
  ...importOrder,
  {
    files: ['src/dev/**/*.ts'],
    rules: importRule([...FOLDERS.flatMap(into)], 'dev/ stands alone.'),
  },
  {
    files: ['src/**/*.ts'],
    ignores: ['src/app/environment.ts', 'src/dev/**'],
    rules: {
      'no-restricted-properties': [
        'error',
        { object: 'process', property: 'env', message: 'Read the environment in app/environment.ts only.' },
      ],
    },
  },
  { ignores: ['examples/kafka-host/'] },
);
