/** Kernels against the specification: whatever is not known of them fails. */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runCampaign } from '../../conformance/campaign.ts';
import { checkProgram, expectationsOf } from '../../conformance/check.ts';
import { Coverage } from '../../conformance/coverage.ts';
import { parseDivergences } from '../../conformance/divergences.ts';
import { Known } from '../../conformance/known.ts';
import { CATALOGUE } from '../../model/catalogue.ts';
import { parseProgram, printProgram, ProgramError, type Program } from '../../model/core/program.ts';
import { Specification } from '../../model/core/specification.ts';
import { kernelSuite, qemuSuite } from '../../properties/kernel.ts';
import type { Target } from '../adapter.ts';
import { openKvm } from './kvm.ts';
import { openQemu } from './qemu-target.ts';
import type { KernelTarget } from './target.ts';

const ROOT = join(__dirname, '../..');
const FILE = join(ROOT, 'divergences/linux.json');
const DIVERGENCES = parseDivergences(readFileSync(FILE, 'utf8'), FILE);
const SCENARIOS = readdirSync(join(ROOT, 'scenarios')).filter((name) => name.endsWith('.gmem'));
const SEED = 20_261_120;

/** The scenario, where the profile has its commands and the target can execute them. */
function scenario(name: string, specification: Specification, { capabilities }: Target): Program | undefined {
  try {
    const { program } = parseProgram(specification, readFileSync(join(ROOT, 'scenarios', name), 'utf8'));
    const needs = program.map((command) => specification.transition(command.name).requires);
    return needs.every((need) => need === undefined || capabilities.has(need)) ? program : undefined;
  } catch (error) {
    if (error instanceof ProgramError) return undefined;
    throw error;
  }
}

/** What every kernel must pass. A scenario shows no rule where a kernel lacks what it is about; then it must refuse. */
function conformance(open: () => Promise<KernelTarget>, runs: number): void {
  let target: KernelTarget;
  let specification: Specification;
  beforeAll(async () => {
    target = await open();
    specification = new Specification({ profile: target.profile, machine: target.machine }, CATALOGUE);
  });
  afterAll(async () => target.close());

  it('does what the scenarios say, and reaches every rule that they reach', async () => {
    const coverage = new Coverage(specification);
    const checking = { specification, target, coverage };
    const known = new Known(checking, { divergences: DIVERGENCES });
    await known.examine();
    const expected = new Set<string>();
    const failures: unknown[] = [];
    for (const name of SCENARIOS) {
      const program = scenario(name, specification, target);
      if (program === undefined) continue;
      const trace = expectationsOf(specification, program);
      const verdict = await checkProgram(checking, program, trace);
      if (verdict.kind === 'conforms') for (const { rule } of trace.slice(0, verdict.commands)) expected.add(rule);
      else if (verdict.kind === 'inconclusive' || known.entryFor(program, verdict) === undefined)
        failures.push({ name, verdict });
    }
    const missed = [...expected].filter((rule) => coverage.hits(rule) === 0);
    expect({ failures, missed }).toEqual({ failures: [], missed: [] });
    expect(expected.size).toBeGreaterThan(40);
    process.stdout.write(`${target.about}: the scenarios reach ${expected.size} rules\n`);
  });

  it('conforms, but for what is known', async () => {
    const options = { seed: SEED, runs, maxCommands: 40, divergences: DIVERGENCES, shrinkBudget: 200, searchBudget: 0 };
    const { verdict, reason, failure, known, commands, programs } = await runCampaign(specification, target, options);
    const wrong = known.filter(({ status }) => status !== 'reproduced' && status !== 'not-applicable');
    const witness = failure && {
      ...failure,
      original: undefined,
      program: printProgram(specification, failure.program),
    };
    process.stdout.write(`${target.about}: ${programs} programs, ${commands} commands\n`);
    expect({ verdict, reason, witness, wrong }).toEqual({ verdict: 'conforms', wrong: [] });
  });
}

kernelSuite('/dev/kvm', () => conformance(openKvm, 400));
for (const [origin, runs, append] of [
  ['debian', 150, undefined],
  ['built', 150, undefined],
  ['built', 150, 'kvm_amd.npt=0'],
  ['checked', 20, undefined],
] as const)
  qemuSuite(
    origin,
    ({ image, modules }) => conformance(() => openQemu({ kernel: image, modules, append }), runs),
    append === undefined ? '' : `, ${append}`,
  );
