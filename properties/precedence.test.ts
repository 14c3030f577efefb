/**
 * Which of two errors wins, in the commands of guest_memfd; in those of TDs the mutants with two rows in the wrong order tell.
 * For each two rows of a command that answer differently, arguments are sought, in states that
 * programs lead to, which violate both: the earlier row must decide, in the specification and in the simulator.
 */
import { describe, expect, it } from '@jest/globals';
import type { Target } from '../adapters/adapter.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { checkProgram, type CheckedStep } from '../conformance/check.ts';
import type { GeneratedProgram } from '../conformance/generate.ts';
import { SmallFastRandom } from '../conformance/random.ts';
import { printProgram, type Program } from '../model/core/program.ts';
import type { AnyTransition, Specification } from '../model/core/specification.ts';
import type { State } from '../model/core/state.ts';
import { answerOf, type Args, type Guard } from '../model/core/transition.ts';
import { generated, GUEST_MEMORY, scenarios, SIMULATED, specify } from './support.ts';

interface Pair {
  readonly transition: AnyTransition;
  readonly first: Guard<Args>;
  readonly second: Guard<Args>;
}

const keyOf = ({ first, second }: Pair): string => `${first.id} > ${second.id.slice(second.id.indexOf('/') + 1)}`;

const violable = ({ guards }: AnyTransition): readonly Guard<Args>[] =>
  guards.filter((row) => row.violate !== undefined);

const pairsOf = (transition: AnyTransition): readonly Pair[] =>
  violable(transition).flatMap((first, index, rows) =>
    rows
      .slice(index + 1)
      .filter((second) => answerOf(second) !== answerOf(first))
      .filter((second) => first.group === undefined || first.group !== second.group)
      .map((second) => ({ transition, first, second })),
  );

const NO_SLOT_THERE = 'no slot lies there';
const NOT_CREATED = 'the second row is about slots that are created, the first about others';
const ONE_FILE = 'one descriptor cannot be both';
const ONE_ID = 'one id cannot be both';
const ONE_LENGTH = 'one length cannot be both';
const NO_LATER_FRAME = 'where the range is empty or its first frame cannot be mapped, no later frame is met';
const NEVER_READ_ONLY = 'a frame without a slot, or with guest memory behind it, is never read-only';

/** Pairs of which no arguments can violate both, and why. */
const IMPOSSIBLE: readonly (readonly [RegExp, string])[] = [
  [/^slot\.set\/(address-space|gpa-wraps) > gpa-overlap$/, NO_SLOT_THERE],
  [/^slot\.set\/delete-nothing > (gpa-overlap|no-such-file|file-range-bound)$/, NOT_CREATED],
  [/^slot\.set\/(gmem-immutable|changed) > (no-such-file|file-range-bound)$/, NOT_CREATED],
  [/^slot\.set\/no-such-file > (file-of-another-vm|beyond-file|file-range-bound)$/, ONE_FILE],
  [/^slot\.set\/not-a-gmem-file > file-range-bound$/, ONE_FILE],
  [/^vcpu\.create\/id-too-large > id-taken$/, ONE_ID],
  [/^gmem\.fallocate\/negative > overflow$/, ONE_LENGTH],
  [/^mem\.map\/empty > very-long$/, ONE_LENGTH],
  [/^attributes\.set\/empty > more-than-memory$/, ONE_LENGTH],
  [
    /^vcpu\.prefault\/(empty-or-wraps|private-without-\w+|no-slot|file-gone|poisoned|host-page-\w+) > (runs-into-|more-)/,
    NO_LATER_FRAME,
  ],
  [/^guest\.\w+\/beyond-guest-physical > (?!private-without-slot|no-slot)/, NO_SLOT_THERE],
  [/^gpc\.activate\/invalid-gpa > (?!no-slot)/, NO_SLOT_THERE],
  [/^guest\.store\/(private-without-slot|file-gone|poisoned) > read-only$/, NEVER_READ_ONLY],
];

/**
 * Pairs that few programs lead to. The first three are in scenarios/order-*.gmem. Of the last the earlier row is one on
 * which the specification is silent, and it takes a slot at the very end of guest memory to meet both.
 */
const RARE: readonly RegExp[] = [
  /^slot\.set\/beyond-file > file-range-bound$/,
  /^slot\.set\/gpa-overlap > beyond-guest-physical$/,
  /^gmem\.fallocate\/(two-operations > beyond-file|overflow > unaligned)$/,
  // Where the specification is silent nothing is expected, so that meeting these teaches nothing. A slot for a frame that
  // was remembered as MMIO has to come before anything is mapped there.
  /^guest\.\w+\/mmio-remembered > (?!private-without-slot)/,
  /^gmem\.fallocate\/(two-operations|overflow) > more-than-memory$/,
  // A cache with a range in a private frame, of a slot whose file was closed.
  /^ghc\.\w+\/beyond-range > file-gone$/,
  // A range of two pages, of which the slots have left one, and something is wrong with the other.
  /^ghc\.\w+\/(range-lost|no-address) > (poisoned|unknown-memory|private-by-address)$/,
  /^vcpu\.prefault\/beyond-guest-physical > (private-without-gmem|file-gone|poisoned|host-page-\w+)$/,
];

const isImpossible = (key: string): boolean => IMPOSSIBLE.some(([pattern]) => pattern.test(key));
const isRare = (key: string): boolean => RARE.some((pattern) => pattern.test(key));
const isExcused = (key: string): boolean => isImpossible(key) || isRare(key);

interface Moment {
  readonly program: Program;
  readonly state: State;
  /** How often to draw arguments for each command. */
  readonly draws: number;
}

/** Some of the states that a program leads to. */
function* momentsOf({ commands, trace }: GeneratedProgram, every: number, draws: number): Iterable<Moment> {
  for (let at = commands.length - 1; at > 0; at -= every) {
    const step = trace[at];
    if (step !== undefined && step.unmodelled === undefined)
      yield { program: commands.slice(0, at + 1), state: step.state, draws };
  }
}

/** The programs under scenarios/, which lead to rare states, and many random ones in which nothing fails by chance. */
function* moments(specification: Specification): Iterable<Moment> {
  for (const program of scenarios(specification)) yield* momentsOf(program, 1, 16);
  const random = generated(specification, { programs: 3000, maxCommands: 60, without: 'fault-injection' });
  for (const program of random) yield* momentsOf(program, 5, 1);
}

const decides = ({ guards }: AnyTransition, args: Args, state: State): Guard<Args> | undefined =>
  guards.find((row) => row.violated(args, state));

/** Rows about a descriptor or a mapping: where it is wrong, the rows behind cannot even be asked. */
const isAboutReference = ({ id }: Guard<Args>): boolean =>
  /\/((bad|wrong)-descriptor|foreign-ioctl|not-mapped|far-behind)$/.test(id);

/** Arguments that violate both rows of the pair and none before, made by violating one row after the other. */
function violateBoth(pair: Pair, base: Args, state: State, random: SmallFastRandom): Args | undefined {
  const { transition, first, second } = pair;
  const orders = isAboutReference(first)
    ? [[second, first] as const]
    : [[second, first] as const, [first, second] as const];
  for (const [one, other] of orders) {
    const bent = one.violate?.(base, state, random);
    if (bent === undefined || decides(transition, bent, state) !== one) continue;
    const args = other.violate?.(bent, state, random);
    if (args === undefined || decides(transition, args, state) !== first) continue;
    if (isAboutReference(first) || second.violated(args, state)) return args;
  }
  return undefined;
}

interface Found {
  readonly pairs: ReadonlyMap<string, Program>;
  readonly alone: ReadonlySet<string>;
}

/** For each pair of rows a program that ends in a command which violates both; and the rows that were met alone. */
class Search implements Found {
  readonly pairs = new Map<string, Program>();
  readonly alone = new Set<string>();
  /** Commands of which something is still to be found. */
  readonly #open: Map<AnyTransition, { readonly pairs: Set<Pair>; readonly rows: Set<Guard<Args>> }>;
  readonly #random = new SmallFastRandom(11, 12, 13, 14);

  constructor(specification: Specification, transitions: readonly AnyTransition[]) {
    this.#open = new Map(
      transitions.map((each) => [each, { pairs: new Set(pairsOf(each)), rows: new Set(violable(each)) }]),
    );
    for (const moment of moments(specification)) {
      for (const transition of this.#open.keys())
        for (let draw = 0; draw < moment.draws; draw++) this.#look(transition, moment);
      this.#forgetFinished();
      if (this.#open.size === 0) break;
    }
  }

  #look(transition: AnyTransition, { program, state }: Moment): void {
    const open = this.#open.get(transition);
    const base = transition.draw({ random: this.#random, state, fresh: (prefix) => `${prefix}-new` });
    if (base === undefined || open === undefined) return;
    for (const row of open.rows) {
      const args = row.violate?.(base, state, this.#random);
      if (args === undefined || decides(transition, args, state) !== row) continue;
      this.alone.add(row.id);
      open.rows.delete(row);
    }
    for (const pair of open.pairs) {
      const args = violateBoth(pair, base, state, this.#random);
      if (args === undefined) continue;
      this.pairs.set(keyOf(pair), [...program, { name: transition.name, args }]);
      open.pairs.delete(pair);
    }
  }

  /** Commands of which only pairs are left that may stay so: that a pair is impossible is asked of the programs before. */
  #forgetFinished(): void {
    for (const [transition, { pairs, rows }] of this.#open)
      if (rows.size === 0 && [...pairs].map(keyOf).every(isExcused)) this.#open.delete(transition);
  }
}

/** What the last command of the program comes to on the target, judged by the specification. */
async function lastRule(specification: Specification, target: Target, program: Program): Promise<string> {
  let rule = '';
  const onStep = ({ expected }: CheckedStep): void => {
    ({ rule } = expected);
  };
  const verdict = await checkProgram({ specification, target, onStep }, program);
  return verdict.kind === 'conforms' ? rule : `${verdict.kind}\n${printProgram(specification, program)}`;
}

describe.each(GUEST_MEMORY)('two errors at once in %s', (profile) => {
  const specification = specify(profile);
  const isSimulated = SIMULATED.includes(profile);
  const target = isSimulated ? simulatorTarget() : referenceTarget();
  // What the specification says of other commands is looked at in the profiles that a proposal stands on.
  const transitions = [...specification.transitions.values()].filter(({ only }) => isSimulated || only !== undefined);
  const keys = transitions.flatMap(pairsOf).map(keyOf);
  const found = new Search(specification, transitions);

  it('meet for every pair of rows, but for those that cannot', () => {
    expect(keys.filter((key) => !found.pairs.has(key) && !isExcused(key))).toEqual([]);
    expect(keys.filter((key) => found.pairs.has(key) && isImpossible(key))).toEqual([]);
  });

  it('are decided by the earlier row, in the specification and in the simulator', async () => {
    const decided: string[] = [];
    for (const [key, program] of found.pairs)
      decided.push(`${await lastRule(specification, target, program)} for ${key}`);
    expect(decided).toEqual([...found.pairs.keys()].map((key) => `${key.slice(0, key.indexOf(' '))} for ${key}`));
  });

  it('are no requirement: every row that can be aimed at decides alone as well', () => {
    const rows = transitions.flatMap(violable).map(({ id }) => id);
    expect(rows.filter((id) => !found.alone.has(id))).toEqual([]);
  });
});

describe('pairs that are excused', () => {
  const keys = GUEST_MEMORY.flatMap((id) => [...specify(id).transitions.values()].flatMap(pairsOf).map(keyOf));

  it.each([...IMPOSSIBLE.map(([pattern]) => pattern), ...RARE])('%s are pairs that there are', (pattern) => {
    expect(keys.some((key) => pattern.test(key))).toBe(true);
  });
});
