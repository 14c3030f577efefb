/** What a campaign has found: what is told of it when it is over. */
import _ from 'lodash';
import { ALL_CAPABILITIES, type Capability, type Target } from '../adapters/adapter.ts';
import { hasPart, type FactPart } from '../model/core/facts.ts';
import { concession } from '../model/core/profile.ts';
import type { Specification } from '../model/core/specification.ts';
import { unseenParts, type Invariant } from '../model/invariants/index.ts';
import { whyWithout } from './capability.ts';
import type { Checking, InvariantTally } from './check.ts';
import type { Coverage } from './coverage.ts';
import type { Failure } from './failure.ts';
import { sentencesAbout } from './invariants.ts';
import type { Known, KnownResult } from './known.ts';
import { INTERRUPTED } from './observe.ts';
import type { ProgramVerdict } from './verdict.ts';

export interface InvariantResult {
  readonly id: string;
  /**
   * `not-observable`: the target does not show what the sentence speaks of. `not-evaluated`: it does, but no program of
   * this run came to that. `conceded`: the design cannot keep it.
   */
  readonly status: 'held' | 'broken' | 'not-observable' | 'not-evaluated' | 'conceded';
  readonly checks: number;
  /** Where it was evaluated: parts of the facts that the sentence speaks of, and that the target does not show. */
  readonly unseen: readonly FactPart[];
  /** Why the design cannot keep it, where it is conceded. */
  readonly flaw?: string;
}

/** What ended a run before its last program, where it was not what a program came to. */
export type Stop = 'time' | 'interrupted';

export interface Campaign {
  readonly verdict: ProgramVerdict['kind'];
  readonly stopped?: Stop;
  readonly programs: number;
  readonly commands: number;
  readonly durationMs: number;
  readonly coverage: Coverage;
  readonly invariants: readonly InvariantResult[];
  /** Programs in which the specification took no position, by rule. */
  readonly unmodelled: ReadonlyMap<string, number>;
  /** What became of every entry about known divergences. */
  readonly known: readonly KnownResult[];
  /** Capabilities that the target has not; `commands` where it lacks commands. */
  readonly skipped: readonly { readonly capability: Capability | 'commands'; readonly reason: string }[];
  readonly failure?: Failure;
  /** Why nothing can be said, where the verdict is inconclusive. */
  readonly reason?: string;
}

/** One command in so many may end in an error of the environment before a run says nothing. */
const STARVED_SHARE = 8;

/** What a run has counted, and what it ended with. */
interface Counted extends Pick<Campaign, 'programs' | 'commands' | 'durationMs' | 'unmodelled'> {
  /** What the program came to behind which the run did not go on. */
  readonly last: ProgramVerdict | undefined;
  readonly stopped: Stop | undefined;
  /** Programs that came to no verdict, and why the first did. */
  readonly lost: { readonly programs: number; readonly reason?: string };
  readonly known: Known;
  readonly failure: Failure | undefined;
}

type Checked = Checking & { readonly coverage: Coverage; readonly tally: InvariantTally };

export function conclude(checked: Checked, counted: Counted): Campaign {
  const { coverage, tally, target, specification } = checked;
  const { stopped, known, failure } = counted;
  const verdict = verdictOf(counted, tally);
  return {
    verdict: verdict?.kind ?? 'conforms',
    ...(stopped === undefined ? {} : { stopped }),
    ..._.pick(counted, 'programs', 'commands', 'durationMs', 'unmodelled'),
    coverage,
    invariants: invariantResults(checked, brokenBy(failure, known.results())),
    known: known.results(),
    skipped: [...skippedOn(target), ...skippedCommands(target, specification)],
    ...(failure === undefined ? {} : { failure }),
    ...(verdict?.kind === 'inconclusive' ? { reason: verdict.reason } : {}),
  };
}

type RunVerdict = ProgramVerdict | ReturnType<Known['verdict']>;

/** What diverges outweighs what could not be said. */
function verdictOf(counted: Counted, tally: InvariantTally): RunVerdict | undefined {
  const found: readonly (RunVerdict | undefined)[] = [
    counted.last,
    cutShort(counted),
    withoutVerdict(counted),
    starved(counted, tally),
    counted.known.verdict(),
  ];
  return found.find((each) => each?.kind === 'diverges') ?? found.find((each) => each !== undefined);
}

/** Why nothing can be said of a run that was stopped; one that had its time has shown what it has shown. */
function cutShort({ stopped, programs }: Counted): ProgramVerdict | undefined {
  if (stopped === 'interrupted') return { kind: 'inconclusive', reason: INTERRUPTED };
  if (stopped === undefined || programs > 0) return undefined;
  return { kind: 'inconclusive', reason: 'the time was over before the first program' };
}

function withoutVerdict({ lost, programs }: Counted): ProgramVerdict | undefined {
  if (lost.reason === undefined) return undefined;
  return { kind: 'inconclusive', reason: `${lost.programs} of ${programs} programs: ${lost.reason}` };
}

/** A target that mostly reports want of memory and the like has shown nothing. */
function starved({ commands }: Counted, { environment }: InvariantTally): ProgramVerdict | undefined {
  if (environment * STARVED_SHARE <= commands) return undefined;
  return {
    kind: 'inconclusive',
    reason: `${environment} of ${commands} commands ended in an error of the environment, such as ENOMEM`,
  };
}

/** Invariants that are broken, whether that was known or not. */
const brokenBy = (failure: Failure | undefined, known: readonly KnownResult[]): ReadonlySet<string> =>
  new Set(
    [failure?.invariant, ...known.filter(({ programs }) => programs > 0).map(({ entry }) => entry.invariant)].filter(
      (id) => id !== undefined,
    ),
  );

function invariantResults(
  { specification, target: { capabilities }, tally: { checks, shown } }: Checked,
  broken: ReadonlySet<string>,
): readonly InvariantResult[] {
  const isBlind = !capabilities.has('facts') || shown.size > 0;
  const { profile } = specification.config;
  const unseen = (invariant: Invariant): readonly FactPart[] =>
    unseenParts(invariant, shown).filter((part) => hasPart(profile, part));
  return sentencesAbout(profile).map((invariant) => {
    const { id } = invariant;
    const flaw = concession(profile, id)?.why;
    const count = checks.get(id) ?? 0;
    if (flaw !== undefined && !broken.has(id)) return { id, status: 'conceded', checks: count, unseen: [], flaw };
    const isOverFacts = 'clauses' in invariant;
    const never = isOverFacts && isBlind ? 'not-observable' : 'not-evaluated';
    const status = broken.has(id) ? 'broken' : count > 0 ? 'held' : never;
    return { id, status, checks: count, unseen: isOverFacts && count > 0 ? unseen(invariant) : [] };
  });
}

export const skippedOn = (target: Target): Campaign['skipped'] =>
  ALL_CAPABILITIES.filter((capability) => !target.capabilities.has(capability)).map((capability) => ({
    capability,
    reason: whyWithout(target, capability),
  }));

function skippedCommands(target: Target, { transitions }: Specification): Campaign['skipped'] {
  const lacking = [...transitions.keys()].filter((name) => target.commands?.has(name) === false);
  return lacking.length === 0 ? [] : [{ capability: 'commands', reason: `the target has no ${lacking.join(', ')}` }];
}
