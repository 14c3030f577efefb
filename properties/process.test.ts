/** The process protocol from end to end: what a target is found to be does not change because a pipe lies between. */
import { afterAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import _ from 'lodash';
import { join } from 'node:path';
import { z } from 'zod';
import { mutantById } from '../adapters/mutants/index.ts';
import { Facts, parseFacts } from '../adapters/process/facts.ts';
import { parseHello } from '../adapters/process/protocol.ts';
import { ProcessTarget } from '../adapters/process/target.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import type { Target } from '../adapters/adapter.ts';
import { runCampaign } from '../conformance/campaign.ts';
import type { Campaign } from '../conformance/findings.ts';
import { checkProgram } from '../conformance/check.ts';
import { FULL_MACHINE } from '../model/core/profile.ts';
import { printProgram } from '../model/core/program.ts';
import { INVARIANTS, brokenBy } from '../model/invariants/index.ts';
import { reportOf } from '../report/json.ts';
import { FIXED_SEED, parse, specify } from './support.ts';

const BUDGET = { seed: FIXED_SEED, maxCommands: 40, searchBudget: 0, shrinkBudget: 300 };
const opened: ProcessTarget[] = [];

async function served(...args: readonly string[]): Promise<ProcessTarget> {
  const words = [process.execPath, '--import', 'tsx', join(__dirname, 'served-target.ts'), ...args];
  const target = await ProcessTarget.open(words.map((word) => `'${word}'`).join(' '));
  opened.push(target);
  return target;
}

afterAll(async () => {
  await Promise.all(opened.map((target) => target.close()));
});

/** What a campaign found out. */
const findings = ({ verdict, programs, commands, coverage, invariants, unmodelled, skipped }: Campaign): object => ({
  ...{ verdict, programs, commands, invariants, unmodelled, skipped },
  hits: specify()
    .rules()
    .map(({ id }) => coverage.hits(id)),
});

describe('behind a pipe', () => {
  it('the simulator conforms as ever, facts and all', async () => {
    const run = (target: Target): Promise<Campaign> => runCampaign(specify(), target, { ...BUDGET, runs: 60 });
    const [here, there] = [await run(simulatorTarget()), await run(await served('simulator'))];
    expect(findings(there)).toEqual(findings(here));
    expect(there.verdict).toBe('conforms');
    expect(there.invariants.filter(({ status }) => status === 'held').length).toBeGreaterThan(10);
  });

  it('a mutant is told by the same program', async () => {
    const mutant = mutantById('file-size-rounded-up');
    if (mutant === undefined) throw new Error('there is no such mutant');
    const specification = specify(mutant.profile);
    const run = async (target: Target): Promise<object> => {
      const { failure } = await runCampaign(specification, target, { ...BUDGET, runs: 2000 });
      return { ...failure, program: printProgram(specification, failure?.program ?? []), original: undefined };
    };
    const [here, there] = [await run(mutant.target), await run(await served(mutant.target.name))];
    expect(there).toEqual(here);
    expect(there).toMatchObject({ kind: 'diverges' });
  });

  it('an implementation that has only a part is tested with that, and the rest is named', async () => {
    const target = await served('reference', 'vm.create', 'gmem.create', 'file.stat', 'fd.close');
    const specification = specify();
    const campaign = await runCampaign(specification, target, { ...BUDGET, runs: 150 });
    expect(campaign.verdict).toBe('conforms');
    expect(campaign.skipped).toEqual([
      {
        capability: 'commands',
        reason: expect.stringMatching(/^the target has no vcpu\.create, cap\.check, slot\.set, /),
      },
    ]);
    const report = reportOf(campaign, { specification, target, seed: FIXED_SEED, version: '0' });
    const [hit, missed] = ['gmem.create/created', 'slot.set/create'].map((rule) =>
      report.rules.find(({ id }) => id === rule),
    );
    expect(hit?.hits).toBeGreaterThan(50);
    expect(missed).toMatchObject({ hits: 0, outOfReach: 'the target lacks slot.set' });

    const program = parse(specification, 'vm.create vm=vm0 dev=kvm type=0\nfd.dup as=fd1 fd=vm0');
    const reason = 'the target has no fd.dup';
    const verdict = await checkProgram({ specification, target }, program);
    expect(verdict).toEqual({ kind: 'inconclusive', reason, isUnsupported: true });
  });

  it('one that has nothing of a profile shows nothing', async () => {
    const target = { ...referenceTarget(), commands: new Set(['gmem.link']) };
    const campaign = await runCampaign(specify(), target, { ...BUDGET, runs: 1 });
    const reason = 'the target has none of the commands of linux-7.3';
    expect(campaign).toMatchObject({ verdict: 'inconclusive', reason });
  });
});

interface Schema {
  readonly type?: string | readonly string[];
  readonly enum?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
  readonly minimum?: number;
  readonly maximum?: number;
}

/** Anything that the schema allows, from few names and from numbers at which something changes. */
function valid(schema: Schema): fc.Arbitrary<unknown> {
  const { type, enum: words, properties, required = [], items, anyOf, minimum, maximum = 2 ** 52 } = schema;
  if (words !== undefined) return fc.constantFrom(...words);
  if (anyOf !== undefined) return fc.oneof(...anyOf.map(valid));
  if (Array.isArray(type)) return fc.oneof(...type.map((each: string) => valid({ ...schema, type: each })));
  if (items !== undefined) return fc.array(valid(items), { maxLength: 4 });
  if (properties !== undefined)
    return fc.record(_.mapValues(properties, valid), { requiredKeys: [...required] as never[] });
  switch (type) {
    case 'integer':
      return fc.constantFrom(
        ...[minimum ?? -1, 0, 1, 2, 3, maximum - 1, maximum].filter((each) => each >= (minimum ?? each)),
      );
    case 'boolean':
      return fc.boolean();
    case 'string':
      return fc.constantFrom('vm0', 'file0', 'arena');
    default:
      return fc.constant(null);
  }
}

describe('whatever an implementation says', () => {
  it('of its facts, invariants have an answer', () => {
    const { $defs } = z.toJSONSchema(Facts, { io: 'input' });
    const facts = valid($defs?.['facts'] as Schema).map((each) =>
      parseFacts(each as object as Record<string, unknown>, (schema, value) => schema.parse(value)),
    );
    fc.assert(
      fc.property(facts, facts, fc.boolean(), (before, after, failed) => {
        const answers = INVARIANTS.map((invariant) => typeof brokenBy(invariant, { before, after, failed }));
        expect(answers.filter((answer) => answer !== 'string' && answer !== 'undefined')).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  it('of its machine, there are programs for it', async () => {
    const machines = fc
      .record(
        {
          vmTypes: fc.constantFrom('1', '3'),
          memoryAttributes: fc.boolean(),
          twoDimensionalPaging: fc.boolean(),
          addressSpaces: fc.constantFrom(1, 2),
          guestPhysicalBits: fc.constantFrom(32, 36, 52),
          vcpuPhysicalBits: fc.constantFrom(32, 36, 52),
          userTop: fc.constantFrom('0x400000000000', '0x7ffffffff000', '0x100000000000000'),
          maxVcpuIds: fc.constantFrom('1', '0x100000000'),
          maxVcpus: fc.constantFrom('1', '0x100000000'),
          secretMemory: fc.boolean(),
          processVm: fc.boolean(),
          memoryBytes: fc.constantFrom('0x40000000', '0x10000000000000'),
        },
        { requiredKeys: [] },
      )
      .map((machine) => parseHello(JSON.stringify({ type: 'hello', protocol: 1, name: 'x', machine })).machine);
    await fc.assert(
      fc.asyncProperty(machines, fc.nat(), async (machine, seed) => {
        const whole = { ...FULL_MACHINE, ...machine };
        const specification = specify(undefined, whole);
        const campaign = await runCampaign(specification, referenceTarget(whole), { ...BUDGET, seed, runs: 20 });
        expect(campaign).toMatchObject({ verdict: 'conforms', programs: 20 });
      }),
      { numRuns: 12 },
    );
  });
});
