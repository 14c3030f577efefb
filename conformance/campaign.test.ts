import { describe, expect, it } from '@jest/globals';
import _ from 'lodash';
import type { Observed, Target } from '../adapters/adapter.ts';
import { mutantById } from '../adapters/mutants/index.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { fails } from '../model/core/outcome.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { Specification } from '../model/core/specification.ts';
import { invariantsOf } from '../model/invariants/index.ts';
import { runCampaign } from './campaign.ts';
import { grade } from './grade.ts';
import { SECRECY } from './secret.ts';

const specification = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, CATALOGUE);
const OPTIONS = { seed: 1, runs: 60, maxCommands: 20 };
const reference = referenceTarget();

/** The reference, seen from outside only. */
const black: Target = {
  ...reference,
  name: 'black',
  capabilities: new Set(),
  missing: { facts: 'it is far away' },
  execute: async (program, profile) => {
    const seen: Observed[] = [];
    for (const { outcome } of await reference.execute(program, profile)) seen.push({ outcome });
    return seen;
  },
};

/** Does nothing that the environment could have kept it from doing. */
const lazy = (target: Target): Target => ({
  ...target,
  name: 'lazy',
  *execute(program) {
    let state = specification.initial;
    for (const command of program) {
      const { mayAlso, outcome, state: next } = specification.step(state, command);
      const [excuse] = mayAlso;
      if (excuse === undefined) state = next;
      yield { outcome: excuse === undefined ? outcome : fails(excuse) };
    }
  },
});

describe('a target that always has an excuse', () => {
  it('is caught where allocations fail only when they are told to', async () => {
    const { verdict, failure } = await runCampaign(specification, lazy(simulatorTarget()), OPTIONS);
    expect(verdict).toBe('diverges');
    // Any command that can want memory shows it by itself.
    expect(failure).toMatchObject({ observed: 'ENOMEM', at: 0 });
    expect(failure?.program).toHaveLength(1);
  });

  it('has shown nothing where it is seen from outside only', async () => {
    const { verdict, reason } = await runCampaign(specification, lazy(black), OPTIONS);
    expect(verdict).toBe('inconclusive');
    expect(reason).toMatch(/ended in an error of the environment/);
  });
});

describe('a campaign', () => {
  it('conforms after as many programs as were asked for', async () => {
    const told: number[] = [];
    const onProgram = (programs: number): void => void told.push(programs);
    const campaign = await runCampaign(specification, reference, { ...OPTIONS, onProgram });
    expect(campaign).toMatchObject({ verdict: 'conforms', programs: 60, skipped: [] });
    expect(campaign.failure).toBeUndefined();
    expect(campaign.commands).toBeGreaterThan(100);
    expect(told).toEqual(Array.from({ length: 60 }, (_each, index) => index + 1));
  });

  it('says of each invariant how often it held, or that it could not be seen', async () => {
    const { invariants } = await runCampaign(specification, simulatorTarget(), { ...OPTIONS, runs: 2000 });
    expect(invariants.map(({ id }) => id)).toEqual([
      ...invariantsOf(specification.config.profile).map(({ id }) => id),
      SECRECY.id,
    ]);
    expect(invariants.filter(({ status, checks }) => status !== 'held' || checks === 0)).toEqual([]);
  });

  it('names what a target cannot do, and evaluates nothing that it cannot see', async () => {
    const { verdict, skipped, invariants } = await runCampaign(specification, black, { ...OPTIONS, runs: 400 });
    expect(verdict).toBe('conforms');
    expect(skipped).toEqual([
      { capability: 'facts', reason: 'it is far away' },
      { capability: 'memory-failure', reason: expect.stringContaining('does not say that it can inject a memory') },
      { capability: 'fault-injection', reason: expect.stringContaining('can make an allocation') },
    ]);
    const seen = invariants.filter(({ status }) => status !== 'not-observable').map(({ id }) => id);
    expect(seen).toEqual([SECRECY.id]);
    expect(invariants.find(({ id }) => id === 'gmem/never-rebinds')).toEqual({
      id: 'gmem/never-rebinds',
      status: 'not-observable',
      checks: 0,
      unseen: [],
    });
  });

  it('evaluates what it can see of a sentence, and names the parts of the facts that are missing', async () => {
    const simulator = simulatorTarget();
    const dim: Target = {
      ...simulator,
      *execute(program, profile) {
        for (const { outcome, facts } of simulator.execute(program, profile) as Iterable<Observed>)
          yield { outcome, facts: _.pick(facts, 'files', 'vms', 'slots') };
      },
    };
    const { verdict, invariants } = await runCampaign(specification, dim, { ...OPTIONS, runs: 100 });
    expect(verdict).toBe('conforms');
    const seen = new Map(
      invariants.filter(({ status }) => status === 'held').map(({ id, unseen }) => [id, unseen] as const),
    );
    expect(seen.get('gmem/file-pins-vm')).toEqual([]);
    expect(seen.get('gmem/never-rebinds')).toEqual(['bindings']);
    expect(seen.get('errors/no-effect')).toEqual(['private', 'inodes', 'bindings', 'resident', 'poisoned', 'stageTwo']);
    expect(seen.has('memory/no-stale-mapping')).toBe(false);
  });

  it('asks for facts as often as the target can give them', async () => {
    const asked: (boolean | undefined)[] = [];
    const execute: Target['execute'] = (program, profile, options) => {
      asked.push(options?.facts);
      return reference.execute(program, profile);
    };
    await runCampaign(specification, { ...reference, execute, factsEvery: 3 }, { ...OPTIONS, runs: 7, maxCommands: 3 });
    expect(asked.slice(0, 2)).toEqual([true, false]);
    expect(asked.filter((facts) => facts === true)).toHaveLength(3);
  });

  it('tells what cannot be seen from what never came up', async () => {
    const statuses = async (target: Target): Promise<readonly (readonly [string, string])[]> => {
      // So few programs that none stores a secret.
      const { invariants } = await runCampaign(specification, target, { ...OPTIONS, runs: 2, maxCommands: 3 });
      return invariants.map(({ id, status }) => [id, status] as const);
    };
    expect(new Map(await statuses(simulatorTarget())).get(SECRECY.id)).toBe('not-evaluated');
    const onReference = new Map(await statuses(reference));
    expect(onReference.get('gmem/never-rebinds')).toBe('held');
    expect(onReference.get('memory/free-is-present')).toBe('not-observable');
    const onBlack = await statuses(black);
    expect(_.uniq(onBlack.map(([, status]) => status))).toEqual(['not-observable', 'not-evaluated']);
    const onNothing = await statuses({ ...reference, execute: () => [] });
    expect(_.uniq(onNothing.map(([, status]) => status))).toEqual(['not-evaluated']);
  });

  it('sends no command to a target that lacks what it takes', async () => {
    const names = new Set<string>();
    const execute: Target['execute'] = (program, profile) => {
      for (const { name } of program) names.add(name);
      return black.execute(program, profile);
    };
    await runCampaign(specification, { ...black, execute }, { ...OPTIONS, runs: 200 });
    expect([names.has('memory.fail'), names.has('fault.slab'), names.has('vm.create')]).toEqual([false, false, true]);
  });

  it('counts the programs in which the specification was silent', async () => {
    const { unmodelled } = await runCampaign(specification, reference, { ...OPTIONS, runs: 300 });
    const kinds = new Map(specification.rules().map(({ id, kind }) => [id, kind]));
    expect(unmodelled.size).toBeGreaterThan(3);
    expect([...unmodelled.keys()].filter((id) => kinds.get(id) !== 'unmodelled')).toEqual([]);
  });

  it('stops at the first program that fails, and shrinks it', async () => {
    const target = mutantById('owner-not-compared')?.target ?? reference;
    let told = 0;
    const onDivergence = (): void => {
      told++;
    };
    const campaign = await runCampaign(specification, target, { ...OPTIONS, runs: 5000, onDivergence });
    const { failure } = campaign;
    expect(campaign.verdict).toBe('diverges');
    expect(campaign.programs).toBeLessThan(5000);
    expect(failure?.program.length).toBe(4);
    expect(failure?.original.length).toBeGreaterThanOrEqual(4);
    expect(failure).toMatchObject({ at: 3, rule: 'slot.set/file-of-another-vm', expected: 'EINVAL' });
    expect(told).toBe(1);
  });

  it('leaves the program as it is where no shrinking is wanted', async () => {
    const target = mutantById('owner-not-compared')?.target ?? reference;
    const options = { ...OPTIONS, runs: 5000, shrinkBudget: 0, searchBudget: 0 };
    const { failure } = await runCampaign(specification, target, options);
    expect(failure?.shrinkRuns).toBe(0);
    expect(failure?.program.length).toBe((failure?.at ?? 0) + 1);
  });

  it('says which invariant is broken', async () => {
    const target = mutantById('huge-page-index-beyond-slot')?.target ?? reference;
    const options = { ...OPTIONS, runs: 5000, maxCommands: 60 };
    const { failure, invariants } = await runCampaign(specification, target, options);
    expect(failure?.invariant).toBe('memory/in-bounds');
    expect(invariants.filter(({ status }) => status === 'broken').map(({ id }) => id)).toEqual(['memory/in-bounds']);
  });

  it('is inconclusive where the target is gone', async () => {
    const target: Target = { ...reference, execute: () => [] };
    const campaign = await runCampaign(specification, target, OPTIONS);
    expect(campaign).toMatchObject({ verdict: 'inconclusive', reason: expect.stringMatching(/gone after 0 of/) });
    expect(campaign.failure).toBeUndefined();
  });

  it('does not start a target again and again that fails at the first command, where nothing is shorter', async () => {
    let calls = 0;
    const execute: Target['execute'] = () => {
      calls++;
      return [{ outcome: { kind: 'crash', message: 'always' } }];
    };
    const { failure } = await runCampaign(specification, { ...reference, execute }, OPTIONS);
    expect(failure?.program).toHaveLength(1);
    expect(calls).toBeLessThan(20);
  });

  it('reports a target that does not fail the same way twice with what it did first', async () => {
    let calls = 0;
    const execute: Target['execute'] = (program, profile) =>
      program.length > 0 && ++calls === 1
        ? [{ outcome: { kind: 'crash', message: 'once' } }]
        : reference.execute(program, profile);
    const options = { ...OPTIONS, seed: 2, shrinkBudget: 200, searchBudget: 2000 };
    const campaign = await runCampaign(specification, { ...reference, execute }, options);
    expect(campaign).toMatchObject({ verdict: 'diverges', failure: { at: 0, observed: 'crash: once' } });
  });
});

/** Answers, or hangs, when it is told to. */
const hanging = (onExecute: (calls: number) => boolean): Target => {
  let calls = 0;
  return {
    ...black,
    execute: (program, profile) =>
      onExecute(++calls) ? new Promise(() => undefined) : Promise.resolve(black.execute(program, profile)),
  };
};

describe('a run that is stopped', () => {
  it('conforms where its time is over, as far as it came', async () => {
    const options = { ...OPTIONS, runs: Infinity, timeMs: 200 };
    const { verdict, stopped, programs } = await runCampaign(specification, reference, options);
    expect([verdict, stopped]).toEqual(['conforms', 'time']);
    expect(programs).toBeGreaterThan(0);
  });

  it('says nothing where its time is over before the first program', async () => {
    const { verdict, reason, stopped } = await runCampaign(specification, reference, { ...OPTIONS, timeMs: 0 });
    expect([verdict, stopped, reason]).toEqual(['inconclusive', 'time', 'the time was over before the first program']);
  });

  it('does not say that it was stopped where it came to its end, or to a failure', async () => {
    expect(await runCampaign(specification, reference, { ...OPTIONS, timeMs: 60_000 })).not.toHaveProperty('stopped');
    const target = mutantById('owner-not-compared')?.target ?? reference;
    const options = { ...OPTIONS, runs: Infinity, timeMs: 60_000, shrinkBudget: 0, searchBudget: 0 };
    const failed = await runCampaign(specification, target, options);
    expect([failed.verdict, failed.stopped]).toEqual(['diverges', undefined]);
  });

  it('waits for no answer, and leaves out the program that it was in', async () => {
    const interruption = new AbortController();
    const target = hanging((calls) => {
      if (calls === 9) setImmediate(() => interruption.abort());
      return calls === 9;
    });
    const campaign = await runCampaign(specification, target, { ...OPTIONS, signal: interruption.signal });
    expect(campaign).toMatchObject({ verdict: 'inconclusive', reason: 'interrupted', stopped: 'interrupted' });
    expect(campaign.programs).toBeLessThan(9);
    expect(campaign.programs).toBeGreaterThan(4);
  });

  it('shrinks no further, and shows what it has', async () => {
    const interruption = new AbortController();
    const mutant = mutantById('owner-not-compared')?.target ?? reference;
    let left = Infinity;
    const target: Target = {
      ...mutant,
      execute: (program, profile) => {
        // Shrinking hangs at its tenth program.
        if (left-- === 1) setImmediate(() => interruption.abort());
        return left === 0 ? new Promise(() => undefined) : mutant.execute(program, profile);
      },
    };
    const campaign = await runCampaign(specification, target, {
      ...OPTIONS,
      runs: 5000,
      signal: interruption.signal,
      onDivergence: () => (left = 10),
    });
    expect(campaign.verdict).toBe('diverges');
    expect(campaign.failure?.shrinkRuns).toBeLessThan(12);
    expect(campaign.failure?.rule).toBe('slot.set/file-of-another-vm');
  });
});

describe('a grade', () => {
  it('tells a wrong implementation, with its witness', async () => {
    const target = mutantById('owner-not-compared')?.target ?? reference;
    const { killed, witness } = await grade(specification, target, { ...OPTIONS, runs: 5000 });
    expect([killed, witness?.program.length]).toEqual([true, 4]);
  });

  it('lets a right one pass', async () => {
    const result = await grade(specification, reference, OPTIONS);
    expect(result).toEqual({ killed: false, programs: 60, commands: expect.any(Number) });
  });
});
