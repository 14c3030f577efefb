/** @jest-config-loader esbuild-register */
import type { Config } from 'jest';
import { project } from './jest.config.ts';

/** Tests on kernels: this machine's, and those in QEMU. Not part of `npm test`; what a machine lacks is left out and said so. */
const config: Config = {
  ...project('kernel', ['adapters/**/*.kernel.test.ts']),
  globalSetup: '<rootDir>/jest.kernel.setup.ts',
  maxWorkers: 1,
  testTimeout: 300_000,
};

export default config;
