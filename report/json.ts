/** What a campaign came to, as a JSON document. The schema here is the one that is published. */
import _ from 'lodash';
import { z } from 'zod';
import type { Target } from '../adapters/adapter.ts';
import type { Campaign } from '../conformance/findings.ts';
import { lackOf } from '../conformance/capability.ts';
import { printExpectation, type CheckedStep } from '../conformance/check.ts';
import type { Failure } from '../conformance/failure.ts';
import type { KnownResult } from '../conformance/known.ts';
import { invariantById } from '../conformance/invariants.ts';
import { modelHash } from '../conformance/model-hash.ts';
import type { Shard } from '../conformance/shard.ts';
import type { Stepwise } from '../conformance/stepwise.ts';
import { encodeToken } from '../conformance/token.ts';
import type { Divergence } from '../conformance/verdict.ts';
import { systemOf } from '../model/catalogue.ts';
import { printOutcome } from '../model/core/outcome.ts';
import { printCommand, printProgram, type Program } from '../model/core/program.ts';
import type { Rule, Specification } from '../model/core/specification.ts';
import { factsOfState } from '../model/facts-of-state.ts';

export const REPORT_SCHEMA = 'gmem-conformance-report/2';

const count = z.int().nonnegative();
const Verdict = z.enum(['conforms', 'diverges', 'inconclusive']);

export const RuleReport = z.strictObject({
  id: z.string(),
  system: z.string().describe('What it is a rule of: guest_memfd, or what builds on that'),
  command: z.string(),
  kind: z.enum(['refusal', 'diversion', 'unmodelled', 'acceptance']),
  when: z.string(),
  result: z.string().describe('An errno, a VM exit, `ok`; for kind `unmodelled`, why the specification is silent'),
  source: z.string(),
  hits: count.describe('How often it decided a command that was checked'),
  outOfReach: z.string().optional().describe('Why no program can come to it on this target'),
});

export const InvariantReport = z.strictObject({
  id: z.string(),
  sentence: z.string(),
  source: z.string(),
  status: z.enum(['held', 'broken', 'not-observable', 'not-evaluated', 'conceded']),
  checks: count.describe('Command boundaries at which it was evaluated'),
  unseen: z
    .array(z.string())
    .optional()
    .describe('Where it was evaluated: parts of the facts that it speaks of, and that the target does not show'),
  flaw: z.string().optional().describe('For status `conceded`: why the design cannot keep it'),
});

export const StepReport = z.strictObject({
  command: z.string().describe('As a line of a program'),
  ran: z
    .strictObject({
      rule: z.string(),
      expected: z.string(),
      observed: z.string(),
      state: z
        .unknown()
        .describe('What the specification says is true behind the command: Facts of model/core/facts.ts'),
      facts: z.unknown().optional().describe('What the target says is true then, where it sees inside itself'),
    })
    .optional()
    .describe('Absent where the command was not run, because expectation and observation had parted before'),
});

const Broken = z.strictObject({ rule: z.string(), invariant: z.string().optional() });

export const FailureReport = z.strictObject({
  steps: z.array(StepReport).describe('The shrunk program, command by command'),
  at: count.describe('Index of the command at which expectation and observation part'),
  rule: z.string().describe('The rule that decided what to expect there'),
  invariant: z.string().optional().describe('The invariant that is broken, where that is how the divergence shows'),
  expected: z.string(),
  observed: z.string(),
  twin: z
    .array(z.string())
    .optional()
    .describe('The program with other private data, where it took a comparison of two runs to see the failure'),
  first: Broken.optional().describe(
    'What the program broke before it was shrunk, where that is another rule or invariant',
  ),
  token: z.string().describe('Argument for `gmem-conformance replay`'),
  originalLength: count.describe('Commands of the program before it was shrunk'),
  shrinkRuns: count.describe('Programs that were tried while shrinking'),
  reproduced: z.boolean().describe('Whether the program failed when it was run once more, to be shown'),
  log: z
    .string()
    .optional()
    .describe('The end of what the target wrote beside its answers, such as to standard error, up to then'),
});

export const KnownReport = z.strictObject({
  id: z.string().describe('Name of the entry'),
  rule: z.string().optional(),
  invariant: z.string().optional(),
  status: z
    .enum(['reproduced', 'stale', 'changed', 'new', 'not-applicable', 'inconclusive'])
    .describe('What became of its witness; stale, changed and new make the verdict `diverges`'),
  programs: count.describe('Programs that diverged as the entry says, and were checked up to there'),
  observed: z.string(),
  reason: z.string(),
  source: z.string(),
  note: z.string().optional().describe('Why the status is what it is, and what to do about it'),
});

export const RunReport = z.strictObject({
  seed: z.int(),
  shard: z
    .strictObject({ index: z.int().positive().describe('From 1'), count: z.int().positive() })
    .optional()
    .describe('Which part of the run this was, where it was one of several that were run apart'),
  verdict: Verdict,
  reason: z.string().optional().describe('Why nothing can be said; only where the verdict is inconclusive'),
  stopped: z
    .enum(['time', 'interrupted'])
    .optional()
    .describe('What ended the run before its last program, where that was not what a program came to'),
  programs: count,
  commands: count,
  durationMs: count,
});

/** Everything that a reader needs, so that every other format can be written from it alone. */
export const Report = z
  .strictObject({
    schema: z.literal(REPORT_SCHEMA),
    version: z.string().describe('Version of gmem-conformance'),
    modelHash: z
      .string()
      .describe('Changes when a rule or what it does changes, as far as a few probing programs meet it'),
    target: z.string(),
    about: z.string().optional().describe('What the target is, in words'),
    kernel: z
      .strictObject({ release: z.string(), backEnd: z.string().optional() })
      .optional()
      .describe('The kernel behind the target, where there is one'),
    profile: z.string(),
    verdict: Verdict.describe('The worst of the runs: diverges, then inconclusive, then conforms'),
    runs: z.array(RunReport).min(1).describe('One, or as many as were merged'),
    rules: z.array(RuleReport).describe('Every rule of the profile'),
    invariants: z.array(InvariantReport),
    unmodelled: z
      .array(z.strictObject({ rule: z.string(), programs: count }))
      .describe('Programs that were not checked to their end, because the specification takes no position there'),
    knownDivergences: z.array(KnownReport).describe('Every entry of the file of known divergences'),
    skipped: z.array(z.strictObject({ capability: z.string(), reason: z.string() })),
    failures: z.array(FailureReport).describe('At most one for each run'),
  })
  .meta({ title: 'Report of `gmem-conformance run --json`' });

export type Report = z.infer<typeof Report>;
export type RunReport = z.infer<typeof RunReport>;
export type RuleReport = z.infer<typeof RuleReport>;
export type InvariantReport = z.infer<typeof InvariantReport>;
export type StepReport = z.infer<typeof StepReport>;
export type FailureReport = z.infer<typeof FailureReport>;
export type KnownReport = z.infer<typeof KnownReport>;

/** Against which target, and with which version of this kit, a campaign was run. */
export interface Circumstances {
  readonly specification: Specification;
  readonly target: Target;
  /** Of the whole run, where the campaign was a shard of it. */
  readonly seed: number;
  readonly shard?: Shard | undefined;
  readonly version: string;
  /** The failing program, run once more; where the campaign has a failure. */
  readonly rerun?: Stepwise | undefined;
}

export function reportOf(campaign: Campaign, circumstances: Circumstances): Report {
  const { specification, target, version, rerun } = circumstances;
  const { verdict, coverage, invariants, unmodelled, known, skipped, failure } = campaign;
  return {
    schema: REPORT_SCHEMA,
    version,
    modelHash: modelHash(),
    target: target.name,
    ...(target.about === undefined ? {} : { about: target.about }),
    ...(target.kernel === undefined ? {} : { kernel: _.pick(target.kernel, 'release', 'backEnd') }),
    profile: specification.config.profile.id,
    verdict,
    runs: [runReport(campaign, circumstances)],
    rules: _.uniqBy(specification.rules(), 'id').map((rule) => ruleReport(rule, coverage.hits(rule.id), target)),
    invariants: invariants.map(({ id, status, checks, unseen, flaw }) => {
      const { sentence, source } = invariantById(id);
      return {
        id,
        sentence,
        source,
        status,
        checks,
        ...(unseen.length > 0 && { unseen: [...unseen] }),
        ...(flaw !== undefined && { flaw }),
      };
    }),
    unmodelled: [...unmodelled].map(([rule, times]) => ({ rule, programs: times })),
    knownDivergences: known.map(knownReport),
    skipped: skipped.map(({ capability, reason: why }) => ({ capability, reason: why })),
    failures: failure === undefined ? [] : [failureReport({ specification, target }, failure, rerun)],
  };
}

const runReport = (campaign: Campaign, { seed, shard }: Circumstances): RunReport => ({
  seed,
  ...(shard === undefined ? {} : { shard: { ...shard } }),
  ..._.pick(campaign, 'verdict', 'reason', 'stopped', 'programs', 'commands'),
  durationMs: Math.round(campaign.durationMs),
});

function ruleReport(rule: Rule, hits: number, target: Target): RuleReport {
  const { id, command, kind, when, result, source, requires } = rule;
  const lack = lackOf(target, { name: command, requires });
  const outOfReach = rule.unreachable ?? (lack === undefined ? undefined : `the target lacks ${lack}`);
  return {
    id,
    system: systemOf(command),
    command,
    kind,
    when,
    result,
    source,
    hits,
    ...(outOfReach === undefined ? {} : { outOfReach }),
  };
}

const knownReport = ({ entry, status, programs, note }: KnownResult): KnownReport => ({
  ..._.pick(entry, 'id', 'rule', 'invariant'),
  status,
  programs,
  ..._.pick(entry, 'observed', 'reason', 'source'),
  ...(note === undefined ? {} : { note }),
});

export function failureReport(
  { specification, target }: Pick<Circumstances, 'specification' | 'target'>,
  failure: Failure,
  rerun: Stepwise = { verdict: { kind: 'inconclusive', reason: 'not run again' }, steps: [] },
): FailureReport {
  const { program, original, twin, first, shrinkRuns } = failure;
  const log = target.log?.() ?? '';
  return {
    steps: stepReports(specification, program, rerun.steps),
    ...reported(failure),
    at: failure.at,
    expected: failure.expected,
    observed: failure.observed,
    ...(twin === undefined ? {} : { twin: twin.map((command) => printCommand(specification, command)) }),
    ...(first === undefined ? {} : { first: reported(first) }),
    token: tokenOf(specification, target.name, program),
    originalLength: original.length,
    shrinkRuns,
    reproduced: rerun.verdict.kind === 'diverges',
    ...(log === '' ? {} : { log }),
  };
}

const reported = ({ rule, invariant }: Divergence): z.infer<typeof Broken> => ({
  rule,
  ...(invariant === undefined ? {} : { invariant }),
});

/** `steps` may be fewer than the commands: nothing runs behind the place where expectation and observation part. */
export const stepReports = (
  specification: Specification,
  program: Program,
  steps: readonly CheckedStep[],
): StepReport[] =>
  program.map((command, index) => {
    const step = steps[index];
    return { command: printCommand(specification, command), ...(step === undefined ? {} : { ran: ranReport(step) }) };
  });

const ranReport = ({ expected, observed }: CheckedStep): StepReport['ran'] => ({
  rule: expected.rule,
  expected: printExpectation(expected),
  observed: observed === undefined ? 'not run' : printOutcome(observed.outcome),
  state: factsOfState(expected.state),
  ...(observed?.facts === undefined ? {} : { facts: observed.facts }),
});

export const tokenOf = (specification: Specification, target: string, program: Program): string =>
  encodeToken({
    program: printProgram(specification, program),
    profile: specification.config.profile.id,
    target,
    modelHash: modelHash(),
  });

/** The JSON Schema that is published for other programs to read reports with. */
export const reportJsonSchema = (): object => z.toJSONSchema(Report);
