/** A recorded log against the specification: at a disagreement it is told, and the log is gone on with. */
import type { Came, LogEntry } from '../adapters/adapter.ts';
import type { Facts } from '../model/core/facts.ts';
import { printOutcome, type Observation } from '../model/core/outcome.ts';
import { printCommand } from '../model/core/program.ts';
import type { Rule, Specification, Step } from '../model/core/specification.ts';
import type { State } from '../model/core/state.ts';
import { flawOf, REFUSED_BY_KVM, type SharedRecord } from '../model/sev/shared-set.ts';
import { brokenInvariant, isFailure, printExpectation } from './check.ts';
import { SharedPagesTally, type SharedPages } from './shared-pages.ts';

/** Of each kind so many are kept to be shown; all are counted. */
const SHOWN = 20;

export interface Disagreement {
  readonly line: number;
  readonly command: string;
  readonly rule: string;
  readonly invariant?: string;
  /** What would have been allowed, and when, and who says so. */
  readonly expected: string;
  readonly when: string;
  readonly source: string;
  readonly observed: string;
}

/** Some of many. */
export interface Some<T> {
  readonly count: number;
  readonly shown: readonly T[];
}

/** A command of which the log tells too little to say whether what came of it is allowed. */
export interface Undecided {
  readonly line: number;
  readonly command: string;
  readonly why: string;
}

interface Malformed {
  readonly line: number;
  readonly why: string;
}

export interface TraceResult {
  readonly profile: string;
  readonly commands: number;
  /** Commands of which the log told what came of them. */
  readonly checked: number;
  readonly gaps: number;
  readonly malformed: Some<Malformed>;
  readonly disagreements: Some<Disagreement>;
  /** Neither checked nor in disagreement, and taken for nothing that happened. */
  readonly undecided: Some<Undecided>;
  /** How often each rule decided. */
  readonly rules: readonly { readonly id: string; readonly times: number }[];
  /** Time between the first command and the last, as the log counts it. */
  readonly seconds?: number;
  /** Where the log is one of announcements, of one guest. */
  readonly shared?: SharedPages;
}

class List<T> implements Some<T> {
  count = 0;
  readonly shown: T[] = [];

  add(one: T): void {
    if (this.count++ < SHOWN) this.shown.push(one);
  }
}

type CommandEntry = Extract<LogEntry, { readonly kind: 'command' }>;

export class TraceChecker {
  readonly #specification: Specification;
  readonly #rules: ReadonlyMap<string, Rule>;
  readonly #times = new Map<string, number>();
  readonly #malformed = new List<Malformed>();
  readonly #disagreements = new List<Disagreement>();
  readonly #undecided = new List<Undecided>();
  readonly #shared = new SharedPagesTally();
  #state: State;
  #facts: Facts | undefined;
  #commands = 0;
  #checked = 0;
  #gaps = 0;
  #first: number | undefined;
  #last: number | undefined;

  constructor(specification: Specification) {
    this.#specification = specification;
    this.#state = specification.initial;
    this.#rules = new Map(specification.rules().map((rule) => [rule.id, rule]));
  }

  take(entry: LogEntry): void {
    if (entry.kind === 'gap') this.#gaps++;
    else if (entry.kind === 'malformed') this.#malformed.add({ line: entry.line, why: entry.why });
    else this.#step(entry);
  }

  result(): TraceResult {
    const guests = [...this.#state.status.guests.values()];
    const [only] = guests;
    return {
      profile: this.#specification.config.profile.id,
      commands: this.#commands,
      checked: this.#checked,
      gaps: this.#gaps,
      malformed: this.#malformed,
      disagreements: this.#disagreements,
      undecided: this.#undecided,
      rules: [...this.#times].map(([id, times]) => ({ id, times })),
      ...(this.#first === undefined || this.#last === undefined ? {} : { seconds: this.#last - this.#first }),
      ...(guests.length === 1 && only !== undefined ? { shared: this.#shared.result(only.record) } : {}),
    };
  }

  #step(entry: CommandEntry): void {
    const { line, command, came, seconds } = entry;
    const before = this.#state;
    const step = this.#specification.step(before, command);
    if (line === 0) {
      this.#state = step.state;
      return;
    }
    this.#commands++;
    this.#first ??= seconds;
    this.#last = seconds ?? this.#last;
    if (came === 'refused' && !isRefusedByKvm(entry, step)) {
      this.#undecided.add({ line, command: printCommand(this.#specification, command), why: MAY_BE_REFUSED });
      return;
    }
    this.#state = step.state;
    this.#times.set(step.rule, (this.#times.get(step.rule) ?? 0) + 1);
    this.#count(entry, before);
    if (came !== undefined && step.unmodelled === undefined) this.#compare(entry, came, step, before);
  }

  #count({ line, command: { name, args } }: CommandEntry, before: State): void {
    if (name !== 'status.announce') return;
    const label = args['guest'] as string;
    const recordOf = (state: State): SharedRecord | undefined => state.status.guests.get(label)?.record;
    const [was, is] = [recordOf(before), recordOf(this.#state)];
    if (was !== undefined && is !== undefined)
      this.#shared.see(line, args['gpa'] as bigint, args['pages'] as bigint, was.ranges, is.ranges);
  }

  #compare(entry: CommandEntry, came: Came, step: Step, before: State): void {
    this.#checked++;
    if (typeof came === 'string') {
      if (came === 'reached' && isRefusedByKvm(entry, step)) this.#disagree(entry, step, 'the call got to user space');
      return;
    }
    const next = this.#specification.follow(before, entry.command, step, came);
    if (next === undefined) {
      this.#disagree(entry, step, printOutcome(came));
      return;
    }
    this.#state = next;
    this.#look(entry, step, came, next === before);
  }

  #look(entry: CommandEntry, step: Step, came: Observation, isUnchanged: boolean): void {
    const { facts = this.#facts } = entry;
    const failed = isUnchanged && isFailure(came);
    const broken = brokenInvariant(
      { specification: this.#specification },
      { commands: [entry.command], failed },
      { outcome: came, ...(facts && { facts }) },
      this.#facts,
    );
    this.#facts = facts;
    if (broken === undefined) return;
    const { id, sentence, source } = broken.invariant;
    this.#add(entry, {
      rule: step.rule,
      invariant: id,
      expected: sentence,
      when: 'at every command boundary',
      source,
      observed: broken.how,
    });
  }

  #disagree(entry: CommandEntry, step: Step, observed: string): void {
    const { when = '', source = '' } = this.#rules.get(step.rule) ?? {};
    this.#add(entry, { rule: step.rule, expected: printExpectation(step), when, source, observed });
  }

  #add({ line, command }: CommandEntry, what: Omit<Disagreement, 'line' | 'command'>): void {
    this.#disagreements.add({ line, command: printCommand(this.#specification, command), ...what });
  }
}

/** The event is written before KVM looks at the ring. Source: arch/x86/kvm/x86.c: ____kvm_emulate_hypercall(). */
const MAY_BE_REFUSED =
  'the call is well-formed, and did not get to user space: KVM refuses it from ring 3, and where KVM_CAP_EXIT_HYPERCALL is off, and the log tells neither';

/** Whether KVM has to refuse the call, from whatever ring. A call that user space refuses has got there. */
function isRefusedByKvm({ command: { args } }: CommandEntry, { outcome }: Step): boolean {
  const flaw = flawOf(args['gpa'] as bigint, args['pages'] as bigint, args['attributes'] as bigint);
  return flaw === undefined ? outcome.kind === 'errno' : REFUSED_BY_KVM.has(flaw);
}
