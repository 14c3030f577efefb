/** What a campaign does with known divergences: whether they are still there, and which programs they excuse. */
import _ from 'lodash';
import type { Target } from '../adapters/adapter.ts';
import { createdLabels, printCommand, type Program } from '../model/core/program.ts';
import type { Specification } from '../model/core/specification.ts';
import { breathe } from './breathe.ts';
import { newTally, type Checking } from './check.ts';
import {
  describes,
  inapplicable,
  isAftermath,
  releaseOf,
  speaksOf,
  UNEXPLAINED,
  isUnexplained,
  witnessOf,
  type KnownDivergence,
} from './divergences.ts';
import type { Failure } from './failure.ts';
import { judge } from './judge.ts';
import { INTERRUPTED } from './observe.ts';
import type { Divergence } from './verdict.ts';

export type KnownStatus =
  /** The witness diverges as the entry says. */
  | 'reproduced'
  /** It does not diverge any more. */
  | 'stale'
  /** It diverges in another way. */
  | 'changed'
  /** The entry was made by this run. */
  | 'new'
  /** The entry is about other kernels, machines or profiles. */
  | 'not-applicable'
  /** The target did not run the witness. */
  | 'inconclusive';

export interface KnownResult {
  readonly entry: KnownDivergence;
  readonly status: KnownStatus;
  /** Programs that diverged as the entry says, and were not checked any further. */
  readonly programs: number;
  /** Why the status is what it is, and what to do about it. */
  readonly note?: string;
  /** The entry as it should be, where it has changed. */
  readonly now?: KnownDivergence;
}

type Finding = Pick<KnownResult, 'status' | 'note' | 'now'>;

interface Held extends Finding {
  readonly entry: KnownDivergence;
  /** What excuses programs in this run. */
  readonly active?: KnownDivergence;
  programs: number;
}

export interface KnownOptions {
  readonly divergences?: readonly KnownDivergence[];
  /** Whether to make an entry of every other divergence, and go on. */
  readonly collect?: boolean;
}

/** How often a witness is run before it counts as one that does not diverge. */
const ATTEMPTS = 3;

export class Known {
  readonly #checking: Checking;
  readonly #entries: readonly KnownDivergence[];
  readonly #collect: boolean;
  readonly #held: Held[] = [];

  constructor(
    { specification, target, timeLimitMs, signal }: Checking,
    { divergences = [], collect = false }: KnownOptions,
  ) {
    this.#checking = { specification, target, timeLimitMs, signal };
    this.#entries = divergences;
    this.#collect = collect;
  }

  /** Runs every witness. */
  async examine(): Promise<void> {
    const { specification, target } = this.#checking;
    for (const entry of this.#entries) {
      const note = inapplicable(entry, target, specification);
      const finding = note === undefined ? await this.#reproduce(entry) : { status: 'not-applicable' as const, note };
      const active = this.#activeOf(entry, finding);
      this.#held.push({ entry, ...finding, programs: 0, ...(active === undefined ? {} : { active }) });
    }
  }

  /** A divergence that only shows otherwise is excused all the same, so that the rest of the run is not lost. */
  #activeOf(entry: KnownDivergence, { status, now }: Finding): KnownDivergence | undefined {
    if (status === 'stale' || status === 'not-applicable') return undefined;
    return now !== undefined && (this.#collect || isAboutTheSame(entry, now)) ? now : entry;
  }

  async #reproduce(entry: KnownDivergence): Promise<Finding> {
    const program = witnessOf(entry, this.#checking.specification);
    if (program === undefined) return { status: 'not-applicable', note: 'the profile lacks commands of the witness' };
    let finding = await this.#attempt(entry, program);
    for (let attempts = 1; attempts < ATTEMPTS && finding.status !== 'reproduced'; attempts++)
      finding = await this.#attempt(entry, program);
    return finding;
  }

  async #attempt(entry: KnownDivergence, program: Program): Promise<Finding> {
    await breathe();
    if (this.#checking.signal?.aborted === true) return { status: 'inconclusive', note: INTERRUPTED };
    const tally = newTally();
    const verdict = await judge({ ...this.#checking, tally }, program);
    if (verdict.kind === 'inconclusive') return { status: 'inconclusive', note: verdict.reason };
    if (verdict.kind === 'diverges') {
      const isLast = verdict.at === program.length - 1;
      if (isLast && describes(entry, verdict, program[verdict.at])) return { status: 'reproduced' };
      return this.#changed(entry, program, verdict);
    }
    if (tally.environment > 0)
      return { status: 'inconclusive', note: 'the witness met an error of the environment, such as ENOMEM' };
    return { status: 'stale', note: 'no longer reproduces: remove it, or narrow since and before' };
  }

  #changed(entry: KnownDivergence, program: Program, divergence: Divergence): Finding {
    const { at, rule, invariant, observed } = divergence;
    const isSame = at === program.length - 1 && speaksOf(entry, divergence, program[at]);
    const what = isSame
      ? `observed ${observed} instead of ${entry.observed}`
      : `the witness breaks ${invariant ?? rule} at command ${at + 1} of ${program.length}, where ${observed} was observed`;
    const subject = this.#subject(program.slice(0, at + 1), divergence);
    return {
      status: 'changed',
      note: `${what}: correct the entry, or narrow since and before`,
      now: {
        ...(isSame
          ? { ...entry, observed: subject.observed }
          : { ..._.omit(entry, 'rule', 'invariant', 'where'), ...subject }),
        reason: `${UNEXPLAINED}: ${what}${isUnexplained(entry) ? '' : `; before that: ${entry.reason}`}`,
      },
    };
  }

  /** What an entry says of a divergence at the last command. */
  #subject(
    program: Program,
    { rule, invariant, observed }: Divergence,
  ): Pick<KnownDivergence, 'rule' | 'invariant' | 'observed' | 'witness'> {
    const { specification } = this.#checking;
    return {
      // The command at which a broken invariant shows is a matter of chance.
      ...(invariant === undefined ? { rule } : { invariant }),
      observed: generalized(specification, program, observed, invariant !== undefined),
      witness: program.map((command) => printCommand(specification, command)),
    };
  }

  /** The entry that speaks of a divergence of the program. */
  entryFor(program: Program, divergence: Divergence): KnownDivergence | undefined {
    return this.#covering(program, divergence)?.entry;
  }

  /** Whether there is one; counts the program. */
  excuses(program: Program, divergence: Divergence): boolean {
    const held = this.#covering(program, divergence);
    if (held !== undefined) held.programs++;
    return held !== undefined;
  }

  #covering(program: Program, divergence: Divergence): Held | undefined {
    return this.#held.find(
      ({ active }) =>
        active !== undefined &&
        (describes(active, divergence, program[divergence.at]) ||
          isAftermath(active, divergence, program, this.#checking.specification)),
    );
  }

  /** Makes an entry of the failure; false where its program does not fail again, so that nobody could check the entry. */
  async add(failure: Failure): Promise<boolean> {
    const { target, specification } = this.#checking;
    const { rule, invariant, expected, observed } = failure;
    const names = new Set([...this.#entries, ...this.#held.map(({ entry }) => entry)].map(({ id }) => id));
    const entry: KnownDivergence = {
      id: unusedId(invariant ?? rule, names),
      profiles: [specification.config.profile.id],
      ...seenOn(target),
      ...this.#subject(failure.program.slice(0, failure.at + 1), failure),
      reason: `${UNEXPLAINED}: expected ${expected}, observed ${observed}`,
      source: `seen on target ${target.name}`,
    };
    const { status } = await this.#reproduce(entry);
    if (status !== 'reproduced') return false;
    this.#held.push({ entry, status: 'new', active: entry, programs: 0, note: 'was not known: explain it' });
    return true;
  }

  /** Programs by entry, and back. */
  counts(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#held.map(({ entry, programs }) => [entry.id, programs]));
  }

  restore(counts: Readonly<Record<string, number>>): void {
    for (const held of this.#held) held.programs = counts[held.entry.id] ?? 0;
  }

  results(): readonly KnownResult[] {
    return this.#held.map((held) => _.omit(held, 'active'));
  }

  /** What the entries make of the run, by themselves. */
  verdict(): { readonly kind: 'diverges' } | { readonly kind: 'inconclusive'; readonly reason: string } | undefined {
    if (this.#held.some(({ status }) => isWrong(status))) return { kind: 'diverges' };
    const unclear = this.#held.find(({ status }) => status === 'inconclusive');
    return unclear && { kind: 'inconclusive', reason: `known divergence ${unclear.entry.id}: ${unclear.note ?? ''}` };
  }
}

/** Whether the file must be changed. */
const isWrong = (status: KnownStatus): boolean => status === 'stale' || status === 'changed' || status === 'new';

const isAboutTheSame = (one: KnownDivergence, other: KnownDivergence): boolean =>
  one.rule === other.rule && one.invariant === other.invariant && one.witness.length === other.witness.length;

/** The entries as this run found them to be: without those that are stale, with those that are new. */
export const revised = (results: readonly KnownResult[]): readonly KnownDivergence[] =>
  results.filter(({ status }) => status !== 'stale').map(({ entry, now }) => now ?? entry);

/** Which kernels an entry is about of which nothing is known but that it was seen there: the series of that release. */
function seenOn({ kernel }: Target): Pick<KnownDivergence, 'since' | 'before' | 'backEnd'> {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(releaseOf(kernel?.release ?? '') ?? '') ?? [];
  return {
    ...(major === undefined || minor === undefined
      ? {}
      : { since: `${major}.${minor}`, before: `${major}.${Number(minor) + 1}` }),
    ...(kernel?.backEnd === undefined ? {} : { backEnd: kernel.backEnd }),
  };
}

/** Numbers, and the names of things where an invariant is broken, differ from program to program. */
function generalized(specification: Specification, program: Program, observed: string, named: boolean): string {
  if (!named) return observed.replace(/-?\b0x[0-9a-f]+\b/g, '*');
  const labels = program.flatMap((command) => createdLabels(specification.transition(command.name), command));
  return observed.replace(/-?\b(0x[0-9a-f]+|[0-9]+|[a-z][a-z0-9_-]*)\b/g, (word) =>
    /^-?\d/.test(word) || labels.includes(word) ? '*' : word,
  );
}

function unusedId(of: string, taken: ReadonlySet<string>): string {
  const id = of.replace(/[^a-z0-9]+/g, '-').slice(0, 48);
  for (let number = 1; ; number++) {
    const candidate = number === 1 ? id : `${id}-${number}`;
    if (!taken.has(candidate)) return candidate;
  }
}
