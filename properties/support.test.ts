import { expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { mutantById } from '../adapters/mutants/index.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { runCampaign } from '../conformance/campaign.ts';
import { specify, verdictOf } from './support.ts';

const OPTIONS = { seed: 1, runs: 5000, maxCommands: 20 };

it('a failing property prints its seed, and a command that shows the failure again', async () => {
  const target = mutantById('owner-not-compared')?.target ?? referenceTarget();
  const specification = specify();
  const text = verdictOf(await runCampaign(specification, target, OPTIONS), specification, target, OPTIONS.seed);
  expect(text).toMatch(/^diverges \(GMEM_SEED=1, profile linux-7\.3\) at command 3/);
  const [, command = ''] = /^replay: npx tsx (.*)$/m.exec(text) ?? [];
  const { status, stdout } = spawnSync(process.execPath, ['--import', 'tsx', ...command.split(' ')], {
    cwd: join(__dirname, '..'),
    encoding: 'utf8',
  });
  expect(status).toBe(1);
  expect(stdout).toContain('diverges at command 4');
});

it('a property that holds prints nothing but that', async () => {
  const [specification, target] = [specify(), referenceTarget()];
  const campaign = await runCampaign(specification, target, { ...OPTIONS, runs: 20 });
  expect(verdictOf(campaign, specification, target, OPTIONS.seed)).toBe('conforms');
});
