/** The simulator, and the specification itself, behave as the specification says: over all profiles, on several machines. */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { createHash } from 'node:crypto';
import { ALL_CAPABILITIES } from '../adapters/adapter.ts';
import { mutantById } from '../adapters/mutants/index.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { ProgramArbitrary, traceOf } from '../conformance/arbitrary.ts';
import { DEFAULT_BUDGET, runCampaign } from '../conformance/campaign.ts';
import { checkProgram } from '../conformance/check.ts';
import { judge } from '../conformance/judge.ts';
import { VM_TYPE } from '../model/core/abi.ts';
import { FULL_MACHINE, type Machine } from '../model/core/profile.ts';
import { printProgram } from '../model/core/program.ts';
import { invariantsOf } from '../model/invariants/index.ts';
import {
  FIXED_SEED,
  freshSeed,
  generated,
  GUEST_MEMORY,
  replayOf,
  SIMULATED,
  specify,
  unreached,
  verdictOf,
} from './support.ts';

const DEFAULT_ONLY = 1n << VM_TYPE.DEFAULT;

const MACHINES: readonly (readonly [string, Machine])[] = [
  ['the full machine', FULL_MACHINE],
  ['a machine without two-dimensional paging', { ...FULL_MACHINE, twoDimensionalPaging: false }],
  ['a machine without memory attributes', { ...FULL_MACHINE, memoryAttributes: false, vmTypes: DEFAULT_ONLY }],
  ['a machine with one address space', { ...FULL_MACHINE, addressSpaces: 1 }],
  ['a machine with VMs of type DEFAULT only', { ...FULL_MACHINE, vmTypes: DEFAULT_ONLY }],
  ['a machine with narrow guest addresses', { ...FULL_MACHINE, guestPhysicalBits: 39, maxVcpuIds: 8n }],
  ['a machine with 64 MiB of memory', { ...FULL_MACHINE, memoryBytes: 64n << 20n }],
];

describe.each(SIMULATED)('in %s', (profile) => {
  it.each(MACHINES)('the simulator conforms on %s', async (_name, machine) => {
    const specification = specify(profile, machine);
    const seed = freshSeed();
    const options = { seed, runs: machine === FULL_MACHINE ? 600 : 300, maxCommands: 80 };
    const target = simulatorTarget(machine);
    const campaign = await runCampaign(specification, target, options);
    expect(verdictOf(campaign, specification, target, seed)).toBe('conforms');
  });
});

describe.each(GUEST_MEMORY)('in %s', (profile) => {
  it('the specification conforms to itself, and reaches no rule that is said to be unreachable', async () => {
    const specification = specify(profile);
    const seed = freshSeed();
    const target = referenceTarget();
    const campaign = await runCampaign(specification, target, { seed, runs: 800, maxCommands: 80 });
    expect(verdictOf(campaign, specification, target, seed)).toBe('conforms');
    const excused = specification.rules().filter(({ unreachable }) => unreachable !== undefined);
    expect(excused.length).toBeGreaterThan(0);
    expect(excused.filter(({ id }) => campaign.coverage.hits(id) > 0)).toEqual([]);
  });
});

describe.each(['linux-6.18', 'linux-7.3', 'gmem-link-rfc'])('the default budget in %s', (profile) => {
  const specification = specify(profile);

  it('reaches every rule that can be reached', () => {
    const reachable = specification.rules().filter(({ unreachable }) => unreachable === undefined);
    expect(unreached(specification, reachable)).toEqual([]);
  });

  it('evaluates every invariant, in a part of it', async () => {
    const target = simulatorTarget();
    const options = { ...DEFAULT_BUDGET, seed: FIXED_SEED, runs: 1000 };
    const campaign = await runCampaign(specification, target, options);
    expect(verdictOf(campaign, specification, target, FIXED_SEED)).toBe('conforms');
    expect(campaign.invariants.filter(({ status }) => status !== 'held')).toEqual([]);
  });
});

describe('a machine that lacks something', () => {
  it.each([
    ['vcpu.prefault/shadow-paging', { ...FULL_MACHINE, twoDimensionalPaging: false }],
    ['attributes.set/not-built', { ...FULL_MACHINE, memoryAttributes: false, vmTypes: DEFAULT_ONLY }],
    ['slot.set/more-than-memory', { ...FULL_MACHINE, memoryBytes: 64n << 20n }],
  ])('refuses: %s is reached', async (rule, machine) => {
    const specification = specify('linux-7.3', machine);
    const options = { seed: FIXED_SEED, runs: 300, maxCommands: 60 };
    const { coverage } = await runCampaign(specification, simulatorTarget(machine), options);
    expect(coverage.hits(rule)).toBeGreaterThan(0);
    expect(specification.rules().find(({ id }) => id === rule)?.unreachable).toBeUndefined();
  });
});

describe('programs as a fast-check arbitrary', () => {
  const specification = specify();
  const programs = new ProgramArbitrary(specification, { maxCommands: 60, capabilities: new Set(ALL_CAPABILITIES) });

  it('hold in a property of the simulator', async () => {
    await fc.assert(
      fc.asyncProperty(programs, async (program) => {
        const target = simulatorTarget();
        const { kind } = await checkProgram({ specification, target }, program, traceOf(program));
        if (kind !== 'conforms') throw new Error(`${kind}; ${replayOf(specification, target, program)}`);
      }),
      { numRuns: 300 },
    );
  });

  it('shrink to a short program where the property does not hold', async () => {
    const target = mutantById('owner-not-compared')?.target ?? referenceTarget();
    const conforms = fc.asyncProperty(
      new ProgramArbitrary(specification, { maxCommands: 60, capabilities: target.capabilities }),
      async (program) => (await judge({ specification, target }, program)).kind === 'conforms',
    );
    const { failed, counterexample } = await fc.check(conforms, { seed: FIXED_SEED, numRuns: 1000 });
    expect(failed).toBe(true);
    const names = counterexample?.[0].map(({ name }) => name) ?? [];
    expect(names.toSorted()).toEqual(['gmem.create', 'slot.set', 'vm.create', 'vm.create']);
  });
});

describe('one seed', () => {
  const specification = specify();
  const hashOf = (seed: number): string => {
    const hash = createHash('sha256');
    for (const { commands } of generated(specification, { seed, programs: 200, maxCommands: 80 }))
      hash.update(printProgram(specification, commands));
    return hash.digest('hex');
  };

  it('gives the same programs every time, and another seed others', () => {
    expect(hashOf(FIXED_SEED)).toBe(hashOf(FIXED_SEED));
    expect(hashOf(FIXED_SEED)).not.toBe(hashOf(FIXED_SEED + 1));
  });

  it('gives the same campaign every time, down to the witness', async () => {
    const target = mutantById('overlap-misses-last-page')?.target ?? referenceTarget();
    const run = async () => {
      const options = { seed: FIXED_SEED, runs: 1000, maxCommands: 60, shrinkBudget: 2000, searchBudget: 5000 };
      const { programs, commands, failure } = await runCampaign(specification, target, options);
      return { programs, commands, failure };
    };
    const once = await run();
    expect(once.failure?.program.length).toBeGreaterThan(0);
    expect(await run()).toEqual(once);
  });
});

describe('the specification', () => {
  it('is a function: the same state and command give an equal step, and neither is changed', () => {
    const specification = specify();
    for (const { commands, trace } of generated(specification, { programs: 40 })) {
      let state = specification.initial;
      commands.forEach((command, index) => {
        const before = structuredClone({ state, command });
        const step = specification.step(state, command);
        expect(step).toEqual(trace[index]);
        expect({ state, command }).toEqual(before);
        ({ state } = step);
      });
    }
  });

  it('breaks none of its own invariants, and neither do its refusals', async () => {
    const specification = specify();
    const options = { seed: freshSeed(), runs: 500, maxCommands: 60 };
    const { invariants } = await runCampaign(specification, referenceTarget(), options);
    const held = invariants.filter(({ status }) => status === 'held').map(({ id }) => id);
    const blind = invariantsOf(specification.config.profile).filter(({ id }) => !held.includes(id));
    expect(blind.map(({ id }) => id)).toEqual([
      'memory/free-is-present',
      'memory/fresh-is-zero',
      'memory/references-balanced',
      'memory/in-bounds',
    ]);
  });
});
