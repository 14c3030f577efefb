/** @jest-config-loader esbuild-register */
import type { Config } from 'jest';

type Project = Exclude<NonNullable<Config['projects']>[number], string>;

/** One kind of test: its own name in the output, selectable with `npm test -- --selectProjects NAME`. */
export const project = (displayName: string, testMatch: readonly string[], rest: Project = {}): Project => ({
  displayName,
  testMatch: testMatch.map((glob) => `<rootDir>/${glob}`),
  testEnvironment: 'node',
  setupFiles: ['<rootDir>/jest.setup.ts'],
  // The sources are ESM; swc hands them to jest as CommonJS, which needs no experimental flag. Types are checked by tsc.
  transform: {
    '\\.ts$': ['@swc/jest', { jsc: { parser: { syntax: 'typescript' }, target: 'es2023' }, sourceMaps: 'inline' }],
  },
  modulePathIgnorePatterns: ['<rootDir>/dist/'],
  ...rest,
});

/** These need QEMU and a kernel, or the built package: jest.kernel.config.ts, jest.package.config.ts. Mutants: jest.mutants.config.ts. */
const SELF_CONTAINED = { testPathIgnorePatterns: ['/node_modules/', '\\.(kernel|package)\\.test\\.ts$'] };

const config: Config = {
  maxWorkers: 2,
  // Most tests end at once; those that run campaigns take seconds, and many more on a busy machine. Only here it counts.
  testTimeout: 120_000,
  projects: [
    project('unit', ['{model,conformance,adapters,report,cli,jest,scripts,bench}/**/*.test.ts'], SELF_CONTAINED),
    project('properties', ['properties/**/!(mutants)*.test.ts']),
    project('scenarios', ['scenarios/**/*.test.ts']),
  ],
};

export default config;
