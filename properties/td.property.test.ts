/** Guests whose memory the host must not touch: generation gets everywhere, designs keep what they claim, and flaws are found. */
import { describe, expect, it } from '@jest/globals';
import { MUTANTS } from '../adapters/mutants/index.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { Host } from '../adapters/simulator/host.ts';
import { machineTarget, simulatorTarget } from '../adapters/simulator/index.ts';
import { performTd } from '../adapters/simulator/td/commands.ts';
import { TdxMachine } from '../adapters/simulator/td/kvm-tdx.ts';
import { DEFAULT_BUDGET, runCampaign } from '../conformance/campaign.ts';
import { checkSecrecy, twinOf } from '../conformance/secret.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { Specification } from '../model/core/specification.ts';
import { brokenAtEnd } from './designs.ts';
import { concededIn, observedOf } from './flaws.ts';
import { FIXED_SEED, freshSeed, parse, specify, TD, unreached, verdictOf } from './support.ts';
import { FLAWS, HOST_ACCESSES, paidFor, privateGuest } from './td-designs.ts';

describe.each(TD)('in %s', (profile) => {
  const specification = specify(profile);

  it('every rule is reached', () => {
    expect(unreached(specification, specification.rules())).toEqual([]);
  });

  it('every invariant about TDs that is not conceded is looked at, and holds', async () => {
    const seed = freshSeed();
    const target = referenceTarget();
    const campaign = await runCampaign(specification, target, { seed, runs: 400, maxCommands: 60 });
    expect(verdictOf(campaign, specification, target, seed)).toBe('conforms');
    const held = campaign.invariants.filter(({ status }) => status === 'held').map(({ id }) => id);
    const claimed = ['td/no-host-write', 'td/no-user-write', 'td/not-mapped-by-host', 'poison/contained'];
    const conceded = concededIn(profile);
    expect(held).toEqual(expect.arrayContaining(claimed.filter((id) => !conceded.includes(id))));
    expect(held.filter((id) => conceded.includes(id))).toEqual([]);
  });

  it('the simulator conforms', async () => {
    const seed = freshSeed();
    const target = simulatorTarget();
    const campaign = await runCampaign(specification, target, { seed, runs: 300, maxCommands: 60 });
    expect(verdictOf(campaign, specification, target, seed)).toBe('conforms');
  });

  it('has a program for each invariant that it concedes', () => {
    const conceded = concededIn(profile);
    const flawed = FLAWS.filter((each) => each.profile === profile).map(({ invariant }) => invariant);
    expect(flawed.toSorted()).toEqual(conceded.toSorted());
  });
});

describe.each(FLAWS.map((flaw) => [flaw.profile, flaw.invariant, flaw] as const))(
  '%s concedes %s',
  (id, invariant, flaw) => {
    it('which the last command of its program breaks', () => {
      expect(brokenAtEnd(invariant, observedOf(flaw))).toBeDefined();
      expect(brokenAtEnd(invariant, observedOf(flaw).slice(0, -1))).toBeUndefined();
    });

    it('and a campaign that asks for it finds a program as short', async () => {
      const profile = {
        ...profileById(id),
        concedes: profileById(id).concedes?.filter((each) => each.invariant !== invariant) ?? [],
      };
      const specification = new Specification({ profile, machine: FULL_MACHINE }, CATALOGUE);
      const { failure } = await runCampaign(specification, referenceTarget(), {
        seed: FIXED_SEED,
        ...DEFAULT_BUDGET,
        shrinkBudget: 3000,
        searchBudget: 500,
      });
      expect(failure?.invariant).toBe(invariant);
      expect(failure?.program).toHaveLength(parse(specification, flaw.program).length);
    });
  },
);

it('a store that no command asked for is no flaw of the design', async () => {
  const mutant = MUTANTS.find(({ id }) => id === 'page-cleared-after-add');
  const { target, profile = '' } = mutant ?? {};
  if (target === undefined) throw new Error('there is no such mutant');
  const { failure } = await runCampaign(specify(profile), target, { seed: FIXED_SEED, ...DEFAULT_BUDGET });
  expect(failure).toMatchObject({ invariant: 'td/no-host-write', rule: 'td.add/added' });
});

describe('a host access to a private frame', () => {
  const access = (command: RegExp) => {
    const found = HOST_ACCESSES.find((each) => command.test(each.command));
    if (found === undefined) throw new Error(`no access is ${String(command)}`);
    return found;
  };

  it.each([
    ['tdx-poison-rfc-v1', { host: 'SIGBUS', guest: 'ok 0x11', onStoppedCore: 'ok 0x11' }],
    ['tdx-guest-memfd', { host: 'ok', guest: 'ok 0x11', onStoppedCore: 'ok 0x11' }],
    ['share-explicitly', { host: 'SIGBUS', guest: 'ok 0x11', onStoppedCore: 'ok 0x11' }],
    ['sev-c-bit', { host: 'ok', guest: 'ok 0x11', onStoppedCore: 'ok 0x11' }],
    ['s390-pv', { host: 'ok', guest: 'SIGSEGV', onStoppedCore: 'SIGSEGV' }],
  ])('by the mapping of the VMM is answered by %s as it is meant', (profile, paid) => {
    expect(paidFor(access(/^host\.write .*via=user/), profile)).toEqual(paid);
  });

  it.each(['tdx-poison-rfc-v1', 'tdx-guest-memfd', 'share-explicitly'])(
    'by the kernel of %s is paid for by the guest, or by the machine where the core cannot go on',
    (profile) => {
      expect(paidFor(access(/^host\.write .*via=direct width=word/), profile)).toEqual({
        host: 'ok',
        guest: 'machine check, ends the guest',
        onStoppedCore: 'shutdown',
      });
    },
  );
});

describe('a secret of a guest', () => {
  const STORE = 'td.store td=td0 vcpu=0 gfn=0 line=0 world=private width=word value=7';
  const READ = 'host.read td=td0 gfn=0 line=0 via=kcore';
  const stored = (profile: string, ...behind: readonly string[]) =>
    parse(specify(profile), `${privateGuest(profile, false)}${[STORE, ...behind].join('\n')}\n`);

  class WithoutOwnerBit extends TdxMachine {
    protected override cpuLoad(frame: number, line: number): bigint {
      return this.memory.lineAt(frame, line).value;
    }
  }

  it('is told by memory that gives every line to everybody, and to no host by the memory of TDX', async () => {
    const specification = specify('tdx-guest-memfd');
    const program = stored('tdx-guest-memfd', READ);
    const leaky = machineTarget('leaky', (config) => new Host(new WithoutOwnerBit(config), performTd));
    expect(await checkSecrecy({ specification, target: leaky }, program)).toMatchObject({
      kind: 'diverges',
      invariant: 'memory/private-is-secret',
      observed: 'the host saw ok 0x7 with one secret and ok 0xa5c35a3c96e71dbe with another',
    });
    expect(await checkSecrecy({ specification, target: simulatorTarget() }, program)).toEqual({
      kind: 'conforms',
      commands: program.length,
    });
  });

  it.each([
    ['tdx-poison-rfc-v1', true],
    ['sev-c-bit', true],
    ['s390-pv', false],
  ])('stays one in %s when its page becomes shared: %s', (profile, isSecret) => {
    const program = stored(profile, 'td.convert td=td0 gfn=0 to=shared', READ.replace('kcore', 'direct'));
    expect(twinOf(specify(profile), program) !== undefined).toBe(isSecret);
  });
});
