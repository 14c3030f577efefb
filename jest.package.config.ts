/** @jest-config-loader esbuild-register */
/** `npm run test:package`: the package as others get it. Builds it first, and takes what it depends on from the registry. */
import type { Config } from 'jest';
import { project } from './jest.config.ts';

const config: Config = { testTimeout: 300_000, projects: [project('package', ['scripts/**/*.package.test.ts'])] };

export default config;
