/** @jest-config-loader esbuild-register */
import type { Config } from 'jest';
import { project } from './jest.config.ts';

/** Tests that boot kernels in QEMU. Not part of `npm test`; without QEMU or a kernel they are skipped and say so. */
const config: Config = {
  ...project('kernel', ['adapters/**/*.kernel.test.ts']),
  maxWorkers: 1,
  testTimeout: 120_000,
};

export default config;
