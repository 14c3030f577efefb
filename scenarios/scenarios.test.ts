import { describe, expect, it } from '@jest/globals';
import type { Target } from '../adapters/adapter.ts';
import { mutantById } from '../adapters/mutants/index.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { checkProgram, expectationsOf, newTally } from '../conformance/check.ts';
import { Coverage } from '../conformance/coverage.ts';
import { judge } from '../conformance/judge.ts';
import { misfit, type FeatureName, type Scenario } from '../conformance/scenario.ts';
import { checkSecrecy, SECRECY, twinOf } from '../conformance/secret.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { printOutcome } from '../model/core/outcome.ts';
import { FULL_MACHINE, profileById, type Machine } from '../model/core/profile.ts';
import { Specification } from '../model/core/specification.ts';
import { scenarioByName, scenarioNames } from './library.ts';

const SCENARIOS = scenarioNames().map((name) => [name, scenarioByName(name)] as const);

const specify = ({ header }: Scenario, machine = FULL_MACHINE): Specification =>
  new Specification({ profile: profileById(header.profile), machine }, CATALOGUE);

/** What became of the program on the target: verdict, and whether the rule decided and the invariant was evaluated. */
async function replay(scenario: Scenario, target: Target) {
  const {
    program,
    header: { rule, invariant },
  } = scenario;
  const specification = specify(scenario);
  const coverage = new Coverage(specification);
  const tally = newTally();
  const checking = { specification, target, coverage, tally };
  const verdict = await checkProgram(checking, program);
  const secrecy = await checkSecrecy(checking, program);
  if (twinOf(specification, program) !== undefined) tally.checks.set(SECRECY.id, 1);
  return {
    verdict,
    secrecy: secrecy.kind,
    rule: rule === undefined || coverage.hits(rule) > 0,
    invariant: invariant === undefined || (tally.checks.get(invariant) ?? 0) > 0,
  };
}

/** A machine without each feature that has a name. */
const LESS: Record<FeatureName, Machine> = {
  'protected-vms': { ...FULL_MACHINE, vmTypes: 1n },
  'memory-attributes': { ...FULL_MACHINE, memoryAttributes: false },
  'two-dimensional-paging': { ...FULL_MACHINE, twoDimensionalPaging: false },
  'secret-memory': { ...FULL_MACHINE, secretMemory: false },
  'process-vm': { ...FULL_MACHINE, processVm: false },
};

/** What the program takes: capabilities for its commands, and features without which something else is expected of it. */
function takes(scenario: Scenario): readonly string[] {
  const specification = specify(scenario);
  const expected = (machine: Machine): readonly string[] =>
    expectationsOf(specify(scenario, machine), scenario.program).map(
      (step) => step.unmodelled ?? printOutcome(step.outcome),
    );
  const full = expected(FULL_MACHINE).join();
  const capabilities = new Set(scenario.program.map(({ name }) => specification.transition(name).requires));
  return [
    ...[...capabilities].filter((each) => each !== undefined),
    ...Object.entries(LESS).flatMap(([feature, machine]) => (expected(machine).join() === full ? [] : [feature])),
  ];
}

describe.each(SCENARIOS)('%s', (_name, scenario) => {
  it.each(['reference', 'simulator'])('shows on the %s what its header says', async (name) => {
    const target = name === 'reference' ? referenceTarget() : simulatorTarget();
    expect(misfit(scenario, { specification: specify(scenario), target })).toBeUndefined();
    const { invariant, ...rest } = await replay(scenario, target);
    expect(rest).toEqual({
      verdict: { kind: 'conforms', commands: scenario.program.length },
      secrecy: 'conforms',
      rule: true,
    });
    // The reference has no page frames, so that some invariants cannot be evaluated on it.
    expect(invariant || name === 'reference').toBe(true);
  });

  it('requires what it takes, and no more', () => {
    expect((scenario.header.requires ?? []).toSorted()).toEqual(takes(scenario).toSorted());
  });

  it('tells the mutant that it names from the simulator', async () => {
    const { mutant: id } = scenario.header;
    const target = id === undefined ? undefined : mutantById(id)?.target;
    const verdict = target && (await judge({ specification: specify(scenario), target }, scenario.program));
    expect(verdict?.kind).toBe(id === undefined ? undefined : 'diverges');
  });
});

describe('the scenarios', () => {
  it('hold every bug of mechanism that has a mutant and can be shown by one program', () => {
    const named = SCENARIOS.map(([, { header }]) => header.mutant);
    const bugs = SCENARIOS.filter(([name]) => name.startsWith('bug-')).length;
    expect(bugs).toBeGreaterThanOrEqual(5);
    expect(new Set(named).size).toBeGreaterThan(40);
  });
});
