/** What a campaign came to, as a JSON document. The schema here is the one that is published. */
import { z } from 'zod';
import type { Target } from '../adapters/adapter.ts';
import type { Campaign } from '../conformance/campaign.ts';
import type { Failure } from '../conformance/failure.ts';
import type { KnownResult } from '../conformance/known.ts';
import { modelHash } from '../conformance/model-hash.ts';
import { encodeToken } from '../conformance/token.ts';
import type { Divergence } from '../conformance/verdict.ts';
import { printCommand, printProgram, type Program } from '../model/core/program.ts';
import type { Specification } from '../model/core/specification.ts';

export const REPORT_SCHEMA = 'gmem-conformance-report/1';

const count = z.int().nonnegative();

export const FailureReport = z.strictObject({
  program: z.array(z.string()).describe('The shrunk program, one command a line'),
  at: count.describe('Index of the command at which expectation and observation part'),
  rule: z.string().describe('The rule that decided what to expect there'),
  invariant: z.string().optional().describe('The invariant that is broken, where that is how the divergence shows'),
  expected: z.string(),
  observed: z.string(),
  first: z
    .strictObject({ rule: z.string(), invariant: z.string().optional() })
    .optional()
    .describe('What the program broke before it was shrunk, where that is another rule or invariant'),
  token: z.string().describe('Argument for `gmem-conformance replay`'),
  shrinkRuns: count.describe('Programs that were tried while shrinking'),
});

export const Report = z
  .strictObject({
    schema: z.literal(REPORT_SCHEMA),
    version: z.string().describe('Version of gmem-conformance'),
    modelHash: z
      .string()
      .describe('Changes when a rule or what it does changes, as far as a few probing programs meet it'),
    target: z.string(),
    profile: z.string(),
    seed: z.int(),
    verdict: z.enum(['conforms', 'diverges', 'inconclusive']),
    reason: z.string().optional().describe('Why nothing can be said; only where the verdict is inconclusive'),
    programs: count,
    commands: count,
    durationMs: z.number().nonnegative(),
    rules: z
      .array(z.strictObject({ id: z.string(), hits: count }))
      .describe('Every rule of the profile, and how often it decided a command that was checked'),
    invariants: z.array(
      z.strictObject({
        id: z.string(),
        status: z.enum(['held', 'broken', 'not-observable', 'not-evaluated']),
        checks: count,
      }),
    ),
    unmodelled: z
      .array(z.strictObject({ rule: z.string(), programs: count }))
      .describe('Programs that were not checked to their end, because the specification takes no position there'),
    knownDivergences: z
      .array(
        z.strictObject({
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
        }),
      )
      .describe('Every entry of the file of known divergences'),
    skipped: z.array(z.strictObject({ capability: z.string(), reason: z.string() })),
    failure: FailureReport.optional(),
  })
  .meta({ title: 'Report of `gmem-conformance run --json`' });

export type Report = z.infer<typeof Report>;
export type FailureReport = z.infer<typeof FailureReport>;

/** Against which target, and with which version of this kit, a campaign was run. */
export interface Circumstances {
  readonly specification: Specification;
  readonly target: Target;
  readonly seed: number;
  readonly version: string;
}

export function reportOf(campaign: Campaign, { specification, target, seed, version }: Circumstances): Report {
  const { verdict, reason, programs, commands, coverage, invariants, unmodelled, known, skipped, failure } = campaign;
  return {
    schema: REPORT_SCHEMA,
    version,
    modelHash: modelHash(),
    target: target.name,
    profile: specification.config.profile.id,
    seed,
    verdict,
    ...(reason === undefined ? {} : { reason }),
    programs,
    commands,
    durationMs: Math.round(campaign.durationMs),
    rules: specification.rules().map(({ id }) => ({ id, hits: coverage.hits(id) })),
    invariants: invariants.map(({ id, status, checks }) => ({ id, status, checks })),
    unmodelled: [...unmodelled].map(([rule, times]) => ({ rule, programs: times })),
    knownDivergences: known.map(knownReport),
    skipped: skipped.map(({ capability, reason: why }) => ({ capability, reason: why })),
    ...(failure === undefined ? {} : { failure: failureReport(specification, target.name, failure) }),
  };
}

function knownReport({ entry, status, programs, note }: KnownResult): Report['knownDivergences'][number] {
  const { id, rule, invariant, observed, reason, source } = entry;
  return {
    id,
    ...(rule === undefined ? {} : { rule }),
    ...(invariant === undefined ? {} : { invariant }),
    status,
    programs,
    observed,
    reason,
    source,
    ...(note === undefined ? {} : { note }),
  };
}

export function failureReport(
  specification: Specification,
  target: string,
  failure: Omit<Failure, 'kind' | 'original'>,
): FailureReport {
  const { program, at, rule, invariant, expected, observed, first, shrinkRuns } = failure;
  return {
    program: program.map((command) => printCommand(specification, command)),
    at,
    rule,
    ...(invariant === undefined ? {} : { invariant }),
    expected,
    observed,
    ...(first === undefined ? {} : { first: broken(first) }),
    token: tokenOf(specification, target, program),
    shrinkRuns,
  };
}

const broken = ({ rule, invariant }: Divergence): FailureReport['first'] => ({
  rule,
  ...(invariant === undefined ? {} : { invariant }),
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
