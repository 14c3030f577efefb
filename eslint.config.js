import jest from 'eslint-plugin-jest';
import prettier from 'eslint-config-prettier';
import tseslint from 'typescript-eslint';
import { defineConfig } from 'eslint/config';
import { builtinModules } from 'node:module';

const TESTS = '**/*.test.ts';
const PURE = 'The model is pure: same state and command, same answer, on any machine.';

const impureGlobals = [
  'Date',
  'performance',
  'crypto',
  'process',
  'Buffer',
  'require',
  'globalThis',
  'global',
  'fetch',
  'setTimeout',
  'setInterval',
  'setImmediate',
  'queueMicrotask',
];

export default defineConfig(
  { ignores: ['dist/', 'coverage/'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      'max-lines-per-function': ['error', { max: 70, skipBlankLines: true, skipComments: true }],
      'no-console': 'error',
      eqeqeq: 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true, requireDefaultForNonUnion: true },
      ],
      // An assertion names the type that is left; `!` is forbidden, because it says nothing.
      '@typescript-eslint/non-nullable-type-assertion-style': 'off',
      // A whole `import type` leaves no trace at run time; `import { type T }` leaves an empty import behind.
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-import-type-side-effects': 'error',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        // Numbers and bigints (one option) and booleans; every other one as strict has it.
        {
          allowNumber: true,
          allowBoolean: true,
          allowAny: false,
          allowArray: false,
          allowNever: false,
          allowNullish: false,
          allowRegExp: false,
        },
      ],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-unnecessary-condition': [
        'error',
        { allowConstantLoopConditions: 'only-allowed-literals' },
      ],
      // No varsIgnorePattern: lodash is imported as `_`, and an unused import of it must be seen.
      '@typescript-eslint/no-unused-vars': [
        'error',
        { argsIgnorePattern: '^_', destructuredArrayIgnorePattern: '^_', ignoreRestSiblings: true },
      ],
    },
  },
  {
    // The adapter contract is asynchronous; an implementation of it need not be.
    files: ['adapters/**/*.ts', TESTS],
    rules: { '@typescript-eslint/require-await': 'off' },
  },
  {
    files: ['model/**/*.ts'],
    ignores: [TESTS],
    rules: {
      'no-restricted-globals': ['error', ...impureGlobals.map((name) => ({ name, message: PURE }))],
      'no-restricted-properties': ['error', { object: 'Math', property: 'random', message: PURE }],
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            { group: ['node:*'], message: PURE },
            { group: ['fast-check', 'jest', '@jest/*'], message: `${PURE} Tests stand beside it in *.test.ts.` },
          ],
          paths: builtinModules.map((name) => ({ name, message: PURE })),
        },
      ],
    },
  },
  {
    files: [TESTS],
    extends: [jest.configs['flat/recommended']],
    rules: {
      'max-lines-per-function': 'off',
      '@typescript-eslint/unbound-method': 'off',
      'jest/unbound-method': 'error',
      'jest/prefer-importing-jest-globals': 'error',
      // A property test may assert through fast-check or through a helper that says so in its name.
      'jest/expect-expect': ['error', { assertFunctionNames: ['expect', 'expect*', 'fc.assert', 'assert*', 'check*'] }],
    },
  },
  {
    files: ['{cli,bench,scripts}/**/*.ts'],
    rules: { 'no-console': 'off' },
  },
  prettier,
);
