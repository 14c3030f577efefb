/** Keys of SEV: generation gets everywhere, what is claimed of keys holds, and the simulator conforms. */
import { describe, expect, it } from '@jest/globals';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { runCampaign } from '../conformance/campaign.ts';
import { brokenAtEnd } from './designs.ts';
import { concededIn, observedOf, type Flaw } from './flaws.ts';
import { freshSeed, GUEST_MEMORY, SEV, specify, unreached, verdictOf } from './support.ts';

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

/** A guest of SEV stores to a page of guest_memfd, which goes back to the allocator while a cache has the line. */
const FREED_WHILE_CACHED: Flaw = {
  profile: 'sev-gmem-link',
  invariant: 'memory/free-is-present',
  program: `sev.vm vm=vm0 type=sev
sev.init vm=vm0 how=init2 flags=0 features=0 ghcb=0
sev.launch-start vm=vm0 device=sev
sev.vcpu vm=vm0 vcpu=0
sev.file file=file0 vm=vm0
sev.bind vm=vm0 file=file0 gfn=4
sev.store vm=vm0 vcpu=0 gfn=4 value=7
sev.close-file file=file0
`,
};

describe('what is conceded', () => {
  it('has a program each', () => {
    expect([...GUEST_MEMORY, ...SEV].flatMap((profile) => concededIn(profile).map((each) => [profile, each]))).toEqual([
      [FREED_WHILE_CACHED.profile, FREED_WHILE_CACHED.invariant],
    ]);
  });

  it('is broken by its last command, on the simulator: the specification has no caches', () => {
    const observed = observedOf(FREED_WHILE_CACHED, simulatorTarget());
    expect(brokenAtEnd(FREED_WHILE_CACHED.invariant, observed.slice(0, -1))).toBeUndefined();
    expect(brokenAtEnd(FREED_WHILE_CACHED.invariant, observed)).toBeDefined();
  });
});
