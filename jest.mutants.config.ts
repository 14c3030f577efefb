/** @jest-config-loader esbuild-register */
/** `npm run test:mutants`: the kit grades itself on every wrong implementation. `GMEM_PROOF=1` asks it of many seeds. */
import type { Config } from 'jest';
import { project } from './jest.config.ts';

const config: Config = {
  maxWorkers: 2,
  testTimeout: 120_000,
  projects: [project('mutants', ['properties/**/mutants*.test.ts'])],
};

export default config;
