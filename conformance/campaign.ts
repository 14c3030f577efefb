/** Many random programs on one target, until one fails or enough have passed; then the shortest program that fails. */
import fc from 'fast-check';
import _ from 'lodash';
import type { Target } from '../adapters/adapter.ts';
import type { FactPart } from '../model/core/facts.ts';
import type { Program } from '../model/core/program.ts';
import type { Specification, Step } from '../model/core/specification.ts';
import { ProgramArbitrary, traceOf } from './arbitrary.ts';
import { breathe } from './breathe.ts';
import { abilitiesOf, lackOf } from './capability.ts';
import { checkProgram, newTally, type Checking, type InvariantTally } from './check.ts';
import { Coverage } from './coverage.ts';
import { PATIENCE, shrinkFailure, type Failure, type FailureOptions } from './failure.ts';
import { conclude, type Campaign, type Stop } from './findings.ts';
import { Known, type KnownOptions } from './known.ts';
import { INTERRUPTED } from './observe.ts';
import type { Progress } from './progress.ts';
import { checkSecrecy, SECRECY, twinOf } from './secret.ts';
import { smallestFailure } from './smallest.ts';
import type { Divergence, ProgramVerdict } from './verdict.ts';

/** What a run takes by default: enough to reach every rule that can be reached, and over in seconds on a fast target. */
export const DEFAULT_BUDGET = { runs: 15_000, maxCommands: 80 } as const;

export interface CampaignOptions extends Omit<FailureOptions, 'isKnown'>, KnownOptions {
  readonly seed: number;
  /** Programs to run at most. */
  readonly runs: number;
  /** Commands in a program at most. */
  readonly maxCommands: number;
  /** Programs to try at most while shrinking; zero leaves the failing program as it was generated. */
  readonly shrinkBudget?: number;
  /** Commands to run at most in search of other programs that fail, and may shrink further. */
  readonly searchBudget?: number;
  /** How long programs may be run; the one that is being run then is finished, and a failure is shrunk. */
  readonly timeMs?: number;
  /** How long the target may take for one program, where it does not answer at once. */
  readonly timeLimitMs?: number;
  /** Where an earlier process came to with the same options on the same target. */
  readonly resume?: Progress | undefined;
  /** Told between programs what the run has come to, so that another process can go on from there. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** How much time may pass before that is told again. */
  readonly progressEveryMs?: number;
  /** Told after every program. */
  readonly onProgram?: (programs: number, commands: number) => void;
  /** Told when a program has failed and shrinking begins. */
  readonly onDivergence?: (divergence: Divergence) => void;
}

/** A program that the target was given. */
interface Begun {
  readonly program: Program;
  readonly trace: readonly Step[] | undefined;
  readonly checked: ReturnType<typeof checkProgram>;
}

/** How long shrinking may take. On a simulator it is over long before; a kernel takes its time for each program. */
const SHRINK_MS = 120_000;

/** What is lost when a process is killed: of a target that takes longer for a program, nothing. */
const PROGRESS_EVERY_MS = 100;

/** Every so many programs are run a second time with other secrets. */
const SECRECY_EVERY = 2;

export async function runCampaign(
  specification: Specification,
  target: Target,
  options: CampaignOptions,
): Promise<Campaign> {
  const campaign = new Running(specification, target, options);
  await campaign.run();
  return campaign.conclusion(await campaign.failure());
}

class Running {
  readonly #specification: Specification;
  readonly #target: Target;
  readonly #options: CampaignOptions;
  readonly #checking: Checking & { readonly coverage: Coverage; readonly tally: InvariantTally };
  readonly #unmodelled: Map<string, number>;
  #programs: number;
  #commands: number;
  /** Programs that came to no verdict, how many of the last did so in a row, and why the first did. */
  #lost: Progress['lost'];
  #failure: Failure | undefined;
  readonly #known: Known;
  readonly #start = performance.now();
  #toldAt = this.#start;
  /** Programs that were written in this process; those that an earlier one has run are not run again. */
  #written = 0;
  #stopped: Stop | undefined;
  /** The program that was begun last, while nobody has looked at what it came to. */
  #begun: Begun | undefined;
  /** The program behind which the run does not go on, and what it came to. */
  #last: { readonly program: Program; readonly verdict: ProgramVerdict } | undefined;

  constructor(specification: Specification, target: Target, options: CampaignOptions) {
    this.#specification = specification;
    this.#target = target;
    this.#options = options;
    this.#checking = {
      specification,
      target,
      timeLimitMs: options.timeLimitMs,
      signal: options.signal,
      coverage: new Coverage(specification),
      tally: newTally(),
    };
    this.#known = new Known(this.#checking, options);
    const { programs = 0, commands = 0, unmodelled = {}, lost = { programs: 0, inARow: 0 } } = options.resume ?? {};
    [this.#programs, this.#commands, this.#lost] = [programs, commands, lost];
    this.#unmodelled = new Map(Object.entries(unmodelled));
    this.#restoreTally(options.resume);
  }

  #restoreTally({ rules = {}, checks = {}, shown = [], environment = 0 }: Partial<Progress> = {}): void {
    const { coverage, tally } = this.#checking;
    for (const [id, hits] of Object.entries(rules)) coverage.hit(id, hits);
    for (const [id, times] of Object.entries(checks)) tally.checks.set(id, times);
    for (const part of shown) tally.shown.add(part as FactPart);
    tally.environment = environment;
  }

  #tell(everyMs = PROGRESS_EVERY_MS): void {
    const { onProgress } = this.#options;
    const now = performance.now();
    if (onProgress === undefined || now - this.#toldAt < everyMs) return;
    this.#toldAt = now;
    onProgress(this.#progress());
  }

  #progress(): Progress {
    const { coverage, tally } = this.#checking;
    const verdict = this.#last?.verdict;
    return {
      programs: this.#programs,
      commands: this.#commands,
      elapsedMs: Math.round(this.elapsedMs()),
      environment: tally.environment,
      rules: coverage.counts(),
      checks: Object.fromEntries(tally.checks),
      shown: [...tally.shown],
      unmodelled: Object.fromEntries(this.#unmodelled),
      known: this.#known.counts(),
      lost: this.#lost,
      // The twin can be made again.
      ...(verdict?.kind === 'diverges' ? { divergence: _.omit(verdict, 'twin') } : {}),
    };
  }

  /** In this process and earlier ones. */
  elapsedMs(): number {
    return (this.#options.resume?.elapsedMs ?? 0) + performance.now() - this.#start;
  }

  async run(): Promise<void> {
    const { seed, runs, maxCommands } = this.#options;
    await this.#known.examine();
    this.#known.restore(this.#options.resume?.known ?? {});
    const programs = new ProgramArbitrary(this.#specification, {
      maxCommands,
      ...abilitiesOf(this.#target),
    });
    if (this.#hasNothingToRun()) return;
    const property = fc.asyncProperty(programs, (program) => this.#passes(program));
    const { failed, errorInstance } = await fc.check(property, { seed, numRuns: runs, endOnFailure: true });
    // What is thrown is no verdict about the target, but a defect of the kit.
    if (failed && this.#stopped === undefined && this.#last === undefined) throw errorInstance;
    if (!failed && (await this.#lastPasses())) this.#tell(0);
  }

  #hasNothingToRun(): boolean {
    const transitions = [...this.#specification.transitions.values()];
    if (transitions.some((each) => lackOf(this.#target, each) === undefined)) return false;
    const { id } = this.#specification.config.profile;
    const reason = `the target has none of the commands of ${id}`;
    this.#last = { program: [], verdict: { kind: 'inconclusive', reason } };
    return true;
  }

  /** Begins the program, and looks at what came of the one before it: the next is written while a target is busy. */
  async #passes(program: Program): Promise<boolean> {
    if (!(await this.#lastPasses())) return false;
    const pause = breathe();
    if (pause !== undefined) await pause;
    const { signal, resume, timeMs = Infinity } = this.#options;
    if (signal?.aborted === true) return this.#stop('interrupted');
    if (resume !== undefined && this.#written++ < resume.programs) return this.#hasPassed(program, resume);
    if (this.elapsedMs() >= timeMs) return this.#stop('time');
    this.#begin(program);
    // A target that has answered at once keeps nobody waiting.
    return this.#begun?.checked instanceof Promise || (await this.#lastPasses());
  }

  #begin(program: Program): void {
    const facts = this.#programs % (this.#target.factsEvery ?? 1) === 0;
    const trace = traceOf(program);
    const checked = checkProgram({ ...this.#checking, facts }, program, trace);
    // What is thrown there is thrown again where it is awaited, which is later.
    if (checked instanceof Promise) checked.catch(() => undefined);
    this.#begun = { program, trace, checked };
  }

  async #lastPasses(): Promise<boolean> {
    if (this.#begun === undefined) return true;
    const { program } = this.#begun;
    const verdict = await this.#check(this.#begun);
    this.#begun = undefined;
    // In the middle of a program, so that what was counted of it must not be told: it will be run again.
    if (isInterrupted(verdict)) {
      this.#stopped = 'interrupted';
      return false;
    }
    this.#options.onProgram?.(this.#programs, this.#commands);
    const passes = await this.#goesOnBehind(program, verdict);
    if (!passes) this.#last = { program, verdict };
    this.#tell(passes ? this.#options.progressEveryMs : 0);
    return passes;
  }

  /** Between two programs. */
  #stop(stop: Stop): false {
    this.#stopped = stop;
    if (this.#written >= (this.#options.resume?.programs ?? 0)) this.#tell(0);
    return false;
  }

  /** What an earlier process found; it did not go on behind a program that diverged. */
  #hasPassed(program: Program, { programs, divergence }: Progress): boolean {
    if (divergence === undefined || this.#written < programs) return true;
    const twin = divergence.invariant === SECRECY.id ? twinOf(this.#specification, program) : undefined;
    this.#last = { program, verdict: { ...divergence, ...(twin === undefined ? {} : { twin }) } };
    return false;
  }

  async #check({ program, trace, checked }: Begun): Promise<ProgramVerdict> {
    const verdict = checked instanceof Promise ? await checked : checked;
    if (isInterrupted(verdict)) return verdict;
    this.#programs++;
    if (verdict.kind !== 'conforms') return verdict;
    this.#commands += verdict.commands;
    const { unmodelled } = verdict;
    if (unmodelled === undefined) return this.#programs % SECRECY_EVERY === 0 ? this.#secrecy(program, trace) : verdict;
    this.#unmodelled.set(unmodelled.rule, (this.#unmodelled.get(unmodelled.rule) ?? 0) + 1);
    return verdict;
  }

  async #goesOnBehind(program: Program, verdict: ProgramVerdict): Promise<boolean> {
    if (verdict.kind === 'diverges') return this.#isKnown(program, verdict);
    const { programs, inARow, reason } = this.#lost;
    if (verdict.kind === 'conforms') {
      if (inARow > 0) this.#lost = { ...this.#lost, inARow: 0 };
      return true;
    }
    const counted = verdict.isUnsupported === true ? inARow : inARow + 1;
    this.#lost = { programs: programs + 1, inARow: counted, reason: reason ?? verdict.reason };
    // A target that was lost over a program may come back for the next.
    return counted < PATIENCE;
  }

  /** Whether the run may go on behind a program that diverges so. */
  async #isKnown(program: Program, divergence: Divergence): Promise<boolean> {
    if (!this.#known.excuses(program, divergence)) {
      if (this.#options.collect !== true) return false;
      const failure = await this.#shrunk(program, divergence);
      if (!(await this.#known.add(failure))) {
        this.#failure = failure;
        return false;
      }
      // The shrunk program may show another divergence; then this one comes again.
      this.#known.excuses(program, divergence);
    }
    // Where two runs are compared, the first one was counted already.
    if (divergence.twin === undefined) this.#commands += divergence.at + 1;
    return true;
  }

  async #secrecy(program: Program, trace: Begun['trace']): Promise<ProgramVerdict> {
    const verdict = await checkSecrecy(this.#checking, program, trace);
    const { checks } = this.#checking.tally;
    if (verdict.kind !== 'conforms' || verdict.commands > 0) checks.set(SECRECY.id, (checks.get(SECRECY.id) ?? 0) + 1);
    return verdict;
  }

  /** The failing program, shrunk, and how it fails then. */
  async failure(): Promise<Failure | undefined> {
    if (this.#last?.verdict.kind !== 'diverges') return undefined;
    return this.#failure ?? (await this.#shrunk(this.#last.program, this.#last.verdict));
  }

  #shrunk(original: Program, verdict: Divergence): Promise<Failure> {
    this.#options.onDivergence?.(verdict);
    const { specification, target, timeLimitMs, signal } = this.#checking;
    const checking: Checking = { specification, target, timeLimitMs, signal };
    const isKnown: FailureOptions['isKnown'] = (program, divergence) =>
      this.#known.entryFor(program, divergence) !== undefined;
    return shrinkFailure(checking, original, verdict, { ...this.#options, isKnown }, (program, counts, fails, signal) =>
      smallestFailure(checking, program, fails, {
        ...this.#options,
        counts,
        signal: AbortSignal.any([signal, AbortSignal.timeout(SHRINK_MS)]),
      }),
    );
  }

  conclusion(failure: Failure | undefined): Campaign {
    return conclude(this.#checking, {
      last: this.#last?.verdict,
      stopped: this.#stopped,
      programs: this.#programs,
      commands: this.#commands,
      durationMs: this.elapsedMs(),
      unmodelled: this.#unmodelled,
      lost: this.#lost,
      known: this.#known,
      failure,
    });
  }
}

const isInterrupted = (verdict: ProgramVerdict): boolean =>
  verdict.kind === 'inconclusive' && verdict.reason === INTERRUPTED;
