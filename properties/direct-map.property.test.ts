/** Generation gets to every rule of the proposals about the direct map, on the specification itself. */
import { describe, expect, it } from '@jest/globals';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { runCampaign } from '../conformance/campaign.ts';
import { systemOf } from '../model/catalogue.ts';
import { FIXED_SEED, specify, unreached, verdictOf } from './support.ts';

/** What a target sees that has mechanisms, and the specification does not. */
const MECHANISM = [
  'memory/free-is-present',
  'memory/fresh-is-zero',
  'memory/references-balanced',
  'memory/in-bounds',
  'direct-map/unreachable',
  'direct-map/traced',
];

const SYSTEMS = ['direct map', 'ways to memory'];

describe.each(['direct-map-rfc-v1', 'direct-map-v12'])('in %s', (profile) => {
  const specification = specify(profile);

  it('every rule of a command about the direct map is reached', () => {
    const proposed = specification
      .rules()
      .filter(({ command, unreachable }) => unreachable === undefined && SYSTEMS.includes(systemOf(command)));
    expect(unreached(specification, proposed)).toEqual([]);
  });

  it('every invariant is looked at', async () => {
    const target = referenceTarget();
    const campaign = await runCampaign(specification, target, { seed: FIXED_SEED, runs: 1000, maxCommands: 80 });
    expect(verdictOf(campaign, specification, target, FIXED_SEED)).toBe('conforms');
    expect(campaign.invariants.filter(({ status }) => status !== 'held').map(({ id }) => id)).toEqual(MECHANISM);
  });
});
