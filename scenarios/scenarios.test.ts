import { describe, expect, it } from '@jest/globals';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Target } from '../adapters/adapter.ts';
import { mutantById } from '../adapters/mutants/index.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { judge } from '../conformance/judge.ts';
import { checkProgram, newTally } from '../conformance/check.ts';
import { Coverage } from '../conformance/coverage.ts';
import { ALL_INVARIANTS } from '../conformance/invariants.ts';
import { checkSecrecy, SECRECY, twinOf } from '../conformance/secret.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { headerOf, parseProgram, type Program } from '../model/core/program.ts';
import { Specification } from '../model/core/specification.ts';

interface Scenario {
  readonly specification: Specification;
  readonly program: Program;
  readonly rule: string | undefined;
  readonly invariant: string | undefined;
  readonly mutant: string | undefined;
}

const KEYS = ['title', 'source', 'profile', 'rule', 'invariant', 'mutant'];

/** Throws where the header lacks something or names what there is not. */
function scenarioOf(text: string): Scenario {
  const header = headerOf(text);
  const { title, source, profile, rule, invariant, mutant } = header;
  for (const [key, value] of Object.entries({ title, source, profile }))
    if (value === undefined || value === '') throw new Error(`the header has no ${key}`);
  if (rule === undefined && invariant === undefined) throw new Error('the header has neither a rule nor an invariant');
  const unknown = Object.keys(header).find((key) => !KEYS.includes(key));
  if (unknown !== undefined) throw new Error(`the header has a ${unknown}, which means nothing`);
  const specification = new Specification({ profile: profileById(profile ?? ''), machine: FULL_MACHINE }, CATALOGUE);
  if (rule !== undefined && !specification.rules().some(({ id }) => id === rule)) throw new Error(`no rule ${rule}`);
  if (invariant !== undefined && !ALL_INVARIANTS.some(({ id }) => id === invariant))
    throw new Error(`no invariant ${invariant}`);
  if (mutant !== undefined && mutantById(mutant) === undefined) throw new Error(`no mutant ${mutant}`);
  return { specification, program: parseProgram(specification, text).program, rule, invariant, mutant };
}

/** What became of the program on the target: verdict, and whether the rule decided and the invariant was evaluated. */
async function replay({ specification, program, rule, invariant }: Scenario, target: Target) {
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

const FILES = readdirSync(__dirname).filter((name) => name.endsWith('.gmem'));

describe.each(FILES)('%s', (name) => {
  const scenario = scenarioOf(readFileSync(join(__dirname, name), 'utf8'));
  const { specification, program, mutant } = scenario;

  it.each(['reference', 'simulator'])('shows on the %s what its header says', async (target) => {
    const { invariant, ...rest } = await replay(
      scenario,
      target === 'reference' ? referenceTarget() : simulatorTarget(),
    );
    expect(rest).toEqual({
      verdict: { kind: 'conforms', commands: program.length },
      secrecy: 'conforms',
      rule: true,
    });
    // The reference has no page frames, so that some invariants cannot be evaluated on it.
    expect(invariant || target === 'reference').toBe(true);
  });

  it('tells the mutant that it names from the simulator', async () => {
    const target = mutant === undefined ? undefined : mutantById(mutant)?.target;
    const verdict = target && (await judge({ specification, target }, program));
    expect(verdict?.kind).toBe(mutant === undefined ? undefined : 'diverges');
  });
});

describe('the scenarios', () => {
  it('hold every bug of mechanism that has a mutant and can be shown by one program', () => {
    const named = FILES.map((name) => headerOf(readFileSync(join(__dirname, name), 'utf8'))['mutant']);
    const bugs = FILES.filter((name) => name.startsWith('bug-')).length;
    expect(bugs).toBeGreaterThanOrEqual(5);
    expect(new Set(named).size).toBeGreaterThan(40);
  });
});

describe('a header', () => {
  const HEADER = '# title: a\n# source: b\n# profile: linux-7.3\n# rule: fd.close/bad-descriptor\n';

  it('that is whole is taken', () => {
    expect(scenarioOf(`${HEADER}fd.close fd=none\n`).program).toHaveLength(1);
  });

  it.each([
    [HEADER.replace('title', 'titel'), 'the header has no title'],
    [HEADER.replace('# source: b\n', ''), 'the header has no source'],
    [HEADER.replace('profile: linux-7.3', 'profile:'), 'the header has no profile'],
    [HEADER.replace('rule', 'rules'), 'neither a rule nor an invariant'],
    [HEADER.replace('bad-descriptor', 'worse'), 'no rule fd.close/worse'],
    [`${HEADER}# invariant: gmem/x`, 'no invariant gmem/x'],
    [`${HEADER}# mutant: x`, 'no mutant x'],
    [`${HEADER}# mutants: x`, 'a mutants, which means nothing'],
    [HEADER.replace('linux-7.3', 'linux-1.0'), "unknown profile 'linux-1.0'"],
  ])('%j is refused', (text, message) => {
    expect(() => scenarioOf(text)).toThrow(message);
  });
});
