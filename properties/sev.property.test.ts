/** Keys of SEV, and the hypercall of its guests: generation gets everywhere, and what is claimed of keys holds. */
import { describe, expect, it } from '@jest/globals';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { runCampaign } from '../conformance/campaign.ts';
import { freshSeed, HYPERCALL, SEV, specify, unreached, verdictOf } from './support.ts';

describe.each([...SEV, ...HYPERCALL])('in %s', (profile) => {
  const specification = specify(profile);

  it('every rule is reached', () => {
    expect(unreached(specification, specification.rules())).toEqual([]);
  });
});

describe.each(SEV)('in %s', (profile) => {
  it('the invariants about keys are looked at, and hold', async () => {
    const specification = specify(profile);
    const seed = freshSeed();
    const target = referenceTarget();
    const campaign = await runCampaign(specification, target, { seed, runs: 300, maxCommands: 60 });
    expect(verdictOf(campaign, specification, target, seed)).toBe('conforms');
    const held = campaign.invariants.filter(({ status }) => status === 'held').map(({ id }) => id);
    expect(held).toEqual(expect.arrayContaining(['key/one-owner', 'key/helper-within-owner', 'key/pins-balanced']));
  });
});
