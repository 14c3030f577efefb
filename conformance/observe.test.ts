import { describe, expect, it } from '@jest/globals';
import { setTimeout as after } from 'node:timers/promises';
import type { Observed, Target } from '../adapters/adapter.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { fails, ok } from '../model/core/outcome.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { parseProgram } from '../model/core/program.ts';
import { Specification } from '../model/core/specification.ts';
import { runCampaign } from './campaign.ts';
import { checkProgram } from './check.ts';
import { checkSecrecy, twinOf } from './secret.ts';

const specification = new Specification({ profile: profileById('linux-7.3'), machine: FULL_MACHINE }, CATALOGUE);
const { program } = parseProgram(specification, 'vm.create vm=vm0 dev=kvm type=0\nfd.close fd=vm0\n');
const { program: secretive } = parseProgram(
  specification,
  `vm.create vm=vm0 dev=kvm type=1
vcpu.create vcpu=vcpu0 vm=vm0 id=0
gmem.create file=file0 vm=vm0 size=0x1000 flags=0 reserved=0
slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x1000 hva=arena gmem=file0 offset=0
attributes.set vm=vm0 address=0 size=0x1000 attributes=8 flags=0
guest.store vcpu=vcpu0 gpa=0 value=0x7
`,
);
const reference = referenceTarget();
const TIME_LIMIT_MS = 20;

const never = new Promise<never>(() => undefined);
const boom = new Error('no such device');

/** A generator that observes one thing and then does what is given. */
const then = (end: () => void): Target['execute'] =>
  function* () {
    yield { outcome: ok() };
    end();
  };

const throwing = (): never => {
  throw boom;
};

/** Not of the type that is asked for, as what comes over a wire may be. */
const lying =
  (...observed: readonly unknown[]): Target['execute'] =>
  () =>
    observed as readonly Observed[];

/** Right, and then more. */
const adding = (...more: readonly Observed[]): Target['execute'] =>
  function* (asked, profile) {
    yield* reference.execute(asked, profile) as Iterable<Observed>;
    yield* more;
  };

const HOSTILE: readonly (readonly [string, Target['execute'], string])[] = [
  ['throws at once', throwing, 'the target failed: Error: no such device'],
  ['rejects', () => Promise.reject(boom), 'the target failed: Error: no such device'],
  // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- just that is tried
  ['rejects with no error', () => Promise.reject('gone'), 'the target failed: gone'],
  ['throws while it observes', then(throwing), 'the target failed: Error: no such device'],
  ['throws when it is asked later', async () => then(throwing)([], specification.config.profile), 'the target failed'],
  ['never answers', () => never, 'the target hung: no answer within 0.02 s'],
  ['returns nothing', (() => undefined) as unknown as Target['execute'], 'the target failed: TypeError'],
  ['promises nothing', (async () => undefined) as unknown as Target['execute'], 'the target failed: TypeError'],
  ['says too little', then(() => undefined), 'gone'],
  ['says too much', adding(...Array<Observed>(99).fill({ outcome: ok() })), 'observed more than it was asked to do'],
  ['observes undefined', lying(undefined), "the target's observation 1 is none"],
  ['observes null', lying(null), "the target's observation 1 is none"],
  ['has no outcome', lying({ outcome: undefined }), "the target's observation 1 is none"],
  ['has another kind of outcome', lying({ outcome: { kind: 'fine' } }), "the target's observation 1 is none"],
  ['counts in floating point', lying({ outcome: { kind: 'ok', value: 3 } }), "the target's observation 1 is none"],
  ['gives numbers for errors', lying({ outcome: { kind: 'errno', errno: 22 } }), "the target's observation 1 is none"],
  ['leaves out an address', lying({ outcome: { kind: 'mmio', write: true } }), "the target's observation 1 is none"],
];

describe.each(HOSTILE)('a target that %s', (_what, execute, reason) => {
  const target: Target = { ...reference, execute };
  const checking = { specification, target, timeLimitMs: TIME_LIMIT_MS };
  const inconclusive = { kind: 'inconclusive', reason: expect.stringContaining(reason) };

  it('makes the check of a program inconclusive', async () => {
    expect(await checkProgram(checking, program)).toEqual(inconclusive);
  });

  it('makes the comparison of two runs inconclusive', async () => {
    expect(twinOf(specification, secretive)).toBeDefined();
    expect(await checkSecrecy(checking, secretive)).toEqual(inconclusive);
  });

  it('ends a campaign without a verdict', async () => {
    const options = { seed: 1, runs: 1, maxCommands: 9, timeLimitMs: TIME_LIMIT_MS };
    expect(await runCampaign(specification, target, options)).toMatchObject({ verdict: 'inconclusive', programs: 1 });
  });
});

describe('a target that is right', () => {
  it('may answer later, as long as it does', async () => {
    const execute: Target['execute'] = async (given, profile) => {
      await new Promise((resolve) => setImmediate(resolve));
      return [...(await reference.execute(given, profile))];
    };
    const options = { seed: 1, runs: 100, maxCommands: 20, timeLimitMs: 1000 };
    const later = await runCampaign(specification, { ...reference, execute }, options);
    const atOnce = await runCampaign(specification, reference, options);
    expect({ ...later, durationMs: 0 }).toEqual({ ...atOnce, durationMs: 0 });
    expect(later.verdict).toBe('conforms');
  });

  it('may answer with a promise of Node, which to jest is of another class', async () => {
    const execute: Target['execute'] = (given, profile) =>
      after(1, [...(reference.execute(given, profile) as Iterable<Observed>)]);
    const verdict = await checkProgram({ specification, target: { ...reference, execute } }, program);
    expect(verdict).toEqual({ kind: 'conforms', commands: 2 });
  });

  it('is asked once for each program', async () => {
    let calls = 0;
    const execute: Target['execute'] = async (given, profile) => {
      calls++;
      return reference.execute(given, profile);
    };
    await checkProgram({ specification, target: { ...reference, execute } }, program);
    expect(calls).toBe(1);
  });

  it('may know error numbers that the specification does not: that diverges', async () => {
    const target: Target = { ...reference, execute: lying({ outcome: { kind: 'errno', errno: 'EPERM' } }) };
    expect(await checkProgram({ specification, target }, program)).toMatchObject({
      kind: 'diverges',
      observed: 'EPERM',
    });
  });
});

describe('an interruption', () => {
  it('ends the wait for a target', async () => {
    const interruption = new AbortController();
    const options = { seed: 1, runs: 5, maxCommands: 9, signal: interruption.signal };
    setTimeout(() => interruption.abort(), TIME_LIMIT_MS);
    expect(await runCampaign(specification, { ...reference, execute: () => never }, options)).toMatchObject({
      verdict: 'inconclusive',
      reason: 'interrupted',
    });
  });

  it('comes through where the target never waits', async () => {
    const interruption = new AbortController();
    const options = { seed: 1, runs: 1_000_000, maxCommands: 9, signal: interruption.signal };
    setTimeout(() => interruption.abort(), TIME_LIMIT_MS);
    const { verdict, reason, programs } = await runCampaign(specification, reference, options);
    expect([verdict, reason]).toEqual(['inconclusive', 'interrupted']);
    expect(programs).toBeGreaterThan(0);
  });

  it('ends shrinking, and leaves the divergence', async () => {
    const interruption = new AbortController();
    const execute: Target['execute'] = (given) => given.map(() => ({ outcome: fails('EIO') }));
    const options = { seed: 1, runs: 5, maxCommands: 9, signal: interruption.signal };
    const onDivergence = (): void => interruption.abort();
    const campaign = await runCampaign(specification, { ...reference, execute }, { ...options, onDivergence });
    expect(campaign).toMatchObject({ verdict: 'diverges', failure: { at: 0, shrinkRuns: 0 } });
  });
});

it('a target that dies while shrinking leaves what was found until then', async () => {
  let calls = 0;
  const execute: Target['execute'] = async () => (++calls === 1 ? [{ outcome: fails('EIO') }] : Promise.reject(boom));
  const options = { seed: 1, runs: 5, maxCommands: 9, shrinkBudget: 50, searchBudget: 100 };
  expect(await runCampaign(specification, { ...reference, execute }, options)).toMatchObject({
    verdict: 'diverges',
    failure: { at: 0, observed: 'EIO' },
  });
});

it('what the kit itself throws is no verdict about the target', async () => {
  const broken = new Specification(specification.config, []);
  await expect(async () => checkProgram({ specification: broken, target: reference }, program)).rejects.toThrow(
    "has no command 'vm.create'",
  );
});
