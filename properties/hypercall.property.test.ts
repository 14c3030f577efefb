/** Guests that call the host: the simulator conforms, and what docs/sev.md says of the designs is so. */
import { describe, expect, it } from '@jest/globals';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { runCampaign } from '../conformance/campaign.ts';
import { calledIn, HYPERCALL_MACHINES, HYPERCALL_WAYS } from './hypercall-designs.ts';
import { freshSeed, HYPERCALL, specify, unreached, verdictOf } from './support.ts';

describe.each(HYPERCALL)('in %s', (profile) => {
  const specification = specify(profile);

  it('every rule is reached', () => {
    expect(unreached(specification, specification.rules())).toEqual([]);
  });

  it('the simulator conforms', async () => {
    const seed = freshSeed();
    const target = simulatorTarget();
    const campaign = await runCampaign(specification, target, { seed, runs: 100, maxCommands: 60 });
    expect(verdictOf(campaign, specification, target, seed)).toBe('conforms');
  });

  it('a kernel that has applied alternatives needs no patching for its ordinary hypercalls', () => {
    const after = HYPERCALL_WAYS.filter(({ by, isPatched }) => by === 'ordinary' && isPatched);
    const answers = after.flatMap((way) => HYPERCALL_MACHINES.map((each) => calledIn(profile, each, way, false)));
    expect(answers).toEqual(HYPERCALL_MACHINES.map(() => 'exit'));
  });
});

it.each([
  ['hypercall-patched', 'undecodable'],
  ['hypercall-linux-7.3', 'exit'],
  ['hypercall-vmmcall-default', 'exit'],
] as const)('in %s, a guest of SEV that announces early gets: %s', (profile, answer) => {
  const sev = HYPERCALL_MACHINES.filter((machine) => machine.sev === 'yes');
  const early = HYPERCALL_WAYS.filter(({ by, isPatched }) => by === 'announcement' && isPatched !== true);
  expect(sev.flatMap((machine) => early.map((way) => calledIn(profile, machine, way)))).toEqual([answer]);
});
