/** A campaign that asks a design for an invariant that it concedes finds a program as short as the one that is shown. */
import { expect, it } from '@jest/globals';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { DEFAULT_BUDGET, runCampaign } from '../conformance/campaign.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { Specification } from '../model/core/specification.ts';
import { FLAWS } from './machine-check-designs.ts';
import { FIXED_SEED, parse } from './support.ts';

it.each(FLAWS.map((flaw) => [flaw.profile, flaw.invariant, flaw] as const))('%s: %s', async (id, invariant, flaw) => {
  const { concedes = [], ...rest } = profileById(id);
  const profile = { ...rest, concedes: concedes.filter((each) => each.invariant !== invariant) };
  const specification = new Specification({ profile, machine: FULL_MACHINE }, CATALOGUE);
  const { failure } = await runCampaign(specification, referenceTarget(), {
    ...DEFAULT_BUDGET,
    seed: FIXED_SEED,
  });
  expect(failure?.invariant).toBe(invariant);
  expect(failure?.program).toHaveLength(parse(specification, flaw.program).length);
});
