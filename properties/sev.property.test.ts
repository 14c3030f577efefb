/** Keys of SEV: generation gets everywhere, what is claimed of keys holds, and the simulator conforms. */
import { describe, expect, it } from '@jest/globals';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { runCampaign } from '../conformance/campaign.ts';
import { freshSeed, SEV, specify, unreached, verdictOf } from './support.ts';

const OF_KEYS = ['key/one-owner', 'key/helper-within-owner', 'key/pins-balanced'];

describe.each(SEV)('in %s', (profile) => {
  const specification = specify(profile);

  it('every rule is reached', () => {
    expect(unreached(specification, specification.rules())).toEqual([]);
  });

  it.each([
    ['the specification', referenceTarget()],
    ['the simulator', simulatorTarget()],
  ])('%s keeps the rules and the invariants about keys, which are looked at', async (_name, target) => {
    const seed = freshSeed();
    const campaign = await runCampaign(specification, target, { seed, runs: 150, maxCommands: 60 });
    expect(verdictOf(campaign, specification, target, seed)).toBe('conforms');
    const held = campaign.invariants.filter(({ status }) => status === 'held').map(({ id }) => id);
    expect(held).toEqual(expect.arrayContaining(OF_KEYS));
  });
});
