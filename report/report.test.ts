import { beforeAll, describe, expect, test } from '@jest/globals';
import { Ajv2020 } from 'ajv/dist/2020.js';
import _ from 'lodash';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Target } from '../adapters/adapter.ts';
import { referenceTarget, specificationTarget } from '../adapters/reference/reference.ts';
import { runCampaign } from '../conformance/campaign.ts';
import type { Campaign } from '../conformance/findings.ts';
import { SECRECY } from '../conformance/secret.ts';
import { runStepwise } from '../conformance/stepwise.ts';
import { decodeToken } from '../conformance/token.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { DEFAULT_PROFILE, FULL_MACHINE, profileById } from '../model/core/profile.ts';
import { parseProgram } from '../model/core/program.ts';
import { Specification } from '../model/core/specification.ts';
import { PLAIN } from './colors.ts';
import { type FailureReport, Report, reportOf } from './json.ts';
import { printReplay } from './replay.ts';
import { explain, printFailure, printReport, printSubject } from './terminal.ts';

const specification = new Specification({ profile: profileById(DEFAULT_PROFILE), machine: FULL_MACHINE }, CATALOGUE);

const DROPPED = 'gmem.create/size-unaligned';
/** Takes sizes that are no multiple of the page size. */
const wrong = specificationTarget(
  "not'right",
  CATALOGUE.map((each) => ({ ...each, guards: each.guards.filter(({ id }) => id !== DROPPED) })),
);
const blind: Target = {
  ...referenceTarget(),
  capabilities: new Set(),
  missing: { facts: 'nobody looks inside' },
  execute: (program, profile) =>
    [...(referenceTarget().execute(program, profile) as Iterable<{ outcome: never }>)].map(({ outcome }) => ({
      outcome,
    })),
};

const campaignOn = (target: Target, runs = 300): Promise<Campaign> =>
  runCampaign(specification, target, { seed: 7, runs, maxCommands: 30 });
const toReport = (campaign: Campaign, target: Target): Report =>
  reportOf(campaign, { specification, target, seed: 7, version: '1.2.3' });

const schema = JSON.parse(readFileSync(join(__dirname, '../docs/report.schema.json'), 'utf8')) as object;
const validate = new Ajv2020().compile(schema);

let failed: Report;
let passed: Report;
let unseen: Report;
beforeAll(async () => {
  // It ends as soon as the target fails.
  const campaign = await campaignOn(wrong, 15_000);
  const rerun = await runStepwise({ specification, target: wrong }, campaign.failure?.program ?? []);
  failed = reportOf(campaign, { specification, target: wrong, seed: 7, version: '1.2.3', rerun });
  passed = toReport(await campaignOn(referenceTarget()), referenceTarget());
  unseen = toReport(await campaignOn(blind), blind);
});

const onlyFailure = (): FailureReport => {
  const [failure] = failed.failures;
  if (failure === undefined) throw new Error('the wrong target passed');
  return failure;
};

const stuck = (): Report => ({
  ...passed,
  verdict: 'inconclusive',
  runs: passed.runs.map((run) => ({ ...run, verdict: 'inconclusive', reason: 'the target was gone' })),
});

describe('the JSON report', () => {
  test('validates against the published schema, whatever the verdict', () => {
    for (const report of [passed, failed, unseen, stuck()]) {
      validate(JSON.parse(JSON.stringify(report)));
      expect(validate.errors).toBeNull();
      expect(Report.parse(report)).toEqual(report);
    }
  });

  test('is refused by the schema where a part is missing or unknown', () => {
    const { profile, ...rest } = passed;
    expect(validate(rest)).toBe(false);
    expect(validate({ ...passed, more: profile })).toBe(false);
  });

  test('lists every rule with its hits, in the order of the specification', () => {
    expect(passed.rules.map(({ id }) => id)).toEqual(_.uniq(specification.rules().map(({ id }) => id)));
    expect(passed.rules.find(({ id }) => id === 'vm.create/created')?.hits).toBeGreaterThan(100);
  });

  test('carries no failure where there is none', () => {
    expect(passed).toMatchObject({ verdict: 'conforms', version: '1.2.3', runs: [{ seed: 7, programs: 300 }] });
    expect(passed.failures).toEqual([]);
  });

  test('carries the shrunk program, and a token that holds it', () => {
    const failure = onlyFailure();
    expect(failure).toMatchObject({ rule: DROPPED, at: 1, expected: expect.stringContaining('EINVAL') });
    expect(failure.steps).toHaveLength(2);
    const { program, target } = decodeToken(failure.token);
    expect(program.trim().split('\n')).toEqual(failure.steps.map(({ command }) => command));
    expect(target).toBe(wrong.name);
  });
});

describe('the report on the terminal', () => {
  test('counts what was exercised and names what was not, with the reason', () => {
    const text = printReport(passed, PLAIN);
    expect(text).toMatch(/^verdict {5}conforms$/m);
    expect(text).toMatch(/^rules {7}exercised \d+ of \d+$/m);
    expect(text).toMatch(
      /^cannot be reached here:\n(?: {2}.*\n)* {2}attributes\.set\/not-built +the machine has memory attributes$/m,
    );
    expect(text).toMatch(/^not reached by this run:$/m);
    expect(text).toMatch(/^ {2}gmem\/never-rebinds +held \d+ times$/m);
    expect(text).toMatch(/^unmodelled {2}\d+ programs left/m);
  });

  test('says what could not be seen, and what was skipped for want of which capability', () => {
    const text = printReport(unseen, PLAIN);
    expect(text).toMatch(/gmem\/never-rebinds +not observable on this target/);
    expect(text).toMatch(/memory\.fail\/\S+ +the target lacks memory-failure/);
    expect(text).toMatch(/^skipped {5}3 capabilities\n {2}facts +nobody looks inside$/m);
  });

  test('names the parts of the facts that an invariant was evaluated without', () => {
    const dim = passed.invariants.map((each) => ({ ...each, unseen: ['slots', 'stageTwo'] }));
    expect(printReport({ ...passed, invariants: dim }, PLAIN)).toMatch(
      /gmem\/never-rebinds +held \d+ times, as far as can be seen without slots, stageTwo$/m,
    );
  });

  test('gives the reason where nothing can be said', () => {
    expect(printReport(stuck(), PLAIN)).toContain('inconclusive: the target was gone');
  });

  test('warns where the rules have changed since a program was recorded', () => {
    const subject = { target: 'reference', profile: 'linux-7.3', modelHash: 'now' };
    expect(printSubject({ ...subject, recorded: 'then' })).toContain('recorded with model then');
    expect(printSubject({ ...subject, recorded: 'now' })).toBe(printSubject(subject));
  });
});

async function rerun(text: string): Promise<string> {
  const { program } = parseProgram(specification, text);
  return printReplay(
    { specification, program, ...(await runStepwise({ specification, target: wrong }, program)) },
    PLAIN,
  );
}

describe('a failure on the terminal', () => {
  const show = (change: Partial<FailureReport> = {}): string =>
    printFailure({ ...onlyFailure(), ...change }, failed, PLAIN);

  test('shows the program, the rule with its source, and how to see it again', () => {
    const text = show({ originalLength: 20, twin: [onlyFailure().steps[0]?.command ?? '', 'other'] });
    expect(text).toMatch(/^gmem\.create .* # EINVAL.* ok +<-- here$/m);
    expect(text).toMatch(/^rule {8}gmem\.create\/size-unaligned\n +when .*: EINVAL\n +virt\/kvm\//m);
    expect(text).toMatch(/^shrunk {6}from 20 to 2 commands in \d+ runs$/m);
    expect(text).toMatch(/^replay {6}gmem-conformance replay gmc1\.\S+ --target 'not'\\''right'$/m);
    expect(text).toMatch(/from the same program with\nother$/m);
    expect(text).not.toContain('not deterministic');
  });

  test('names the invariant that is broken, with its sentence and source', () => {
    expect(explain(undefined, SECRECY).join('\n')).toMatch(
      /^invariant +memory\/private-is-secret\n +Two runs that differ only .*\n +virt\/kvm\/guest_memfd\.c/,
    );
  });

  test('names what the program broke before it was shrunk, where that was something else', () => {
    expect(show()).not.toContain('at first');
    const first = { rule: 'vm.create/created', invariant: 'memory/in-bounds' };
    expect(validate({ ...failed, failures: [{ ...onlyFailure(), first }] })).toBe(true);
    expect(show({ first })).toMatch(
      /^observed .*\nat first {4}vm\.create\/created, memory\/in-bounds\n +is what .* --same-rule keeps to that\nshrunk /m,
    );
  });

  test('says so where the program passes the second time', () => {
    expect(show({ reproduced: false })).toContain('not deterministic');
  });

  test('offers C where there is a kernel', () => {
    expect(show()).not.toContain('as C');
    expect(printFailure(onlyFailure(), { ...failed, kernel: { release: '7.3.4' } }, PLAIN)).toMatch(/^as C /m);
  });
});

const VM = 'vm.create vm=vm0 dev=kvm type=0\n';

describe('a replay on the terminal', () => {
  test('names the rule of every step and counts what conforms', async () => {
    const shown = await rerun(VM);
    expect(shown).toMatch(/# vm\.create\/created +ok/);
    expect(shown).toMatch(/conforms\nchecked {5}1 command$/);
  });

  test('marks the parting step, and what was not run after it', async () => {
    const shown = await rerun(`${VM}gmem.create file=file0 vm=vm0 size=1 flags=0 reserved=0\nfd.close fd=vm0\n`);
    expect(shown).toMatch(/EINVAL.*<-- here\nfd\.close fd=vm0 .*not run$/m);
    expect(shown).toContain('diverges at command 2');
  });

  test('says from where on the specification is silent', async () => {
    const shown = await rerun(`${VM}mem.unmap mapping=gone\n`);
    expect(shown).toContain('1 command; from command 2 on the specification takes no position');
  });
});
