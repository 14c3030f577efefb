/**
 * One command of the specification: its arguments, its ordered guard rows, and what happens when none is violated.
 * The order of the rows is part of the specification: the first violated row decides.
 *
 * Everything else is derived from these rows: the oracle, the documents, rule coverage, the precedence test, generators
 * that aim at a row, and one wrong implementation per row dropped and per neighbouring pair swapped.
 */
import type { ArgValue, Domain } from './domain.ts';
import type { Errno, Observation, Outcome } from './outcome.ts';
import type { Condition, Machine, Realm } from './profile.ts';
import { pickOr, type Random } from './random.ts';
import type { FdKind, Label, State } from './state.ts';
import { NO_FD } from './state.ts';

export type Domains = Readonly<Record<string, Domain>>;
export type ArgsOf<D extends Domains> = { readonly [K in keyof D]: D[K] extends Domain<infer T> ? T : never };
export type Args = Readonly<Record<string, ArgValue>>;

/** Capabilities of a target without which commands or rows make no sense. */
export type Requirement = 'memory-failure' | 'fault-injection';

interface RowBase<A> {
  /** `command/what-is-wrong`; appears in reports, coverage, documents and scenarios. */
  readonly id: string;
  /** The condition, as the end of a sentence that starts with "when". */
  readonly when: string;
  /** The function, document or mail that the row comes from, where it is not the transition's own source. */
  readonly source?: string;
  /** Where the row holds; everywhere if left out. */
  readonly only?: Condition;
  /** Why no program can reach the row on a machine, where that is so. */
  unreachable?(machine: Machine): string | undefined;
  /** Why no command gets past the row on a machine, where that is so: nothing below it can be reached. */
  stopsAll?(machine: Machine): string | undefined;
  /** What a target must be able to do for the row to be met. */
  readonly requires?: Requirement;
  /** Rows of one group exclude each other, so that their order says nothing. */
  readonly group?: string;
  violated(args: A, state: State): boolean;
  /** Arguments that break this row and, where it can be had, leave the later rows as they are. */
  violate?(args: A, state: State, random: Random): A | undefined;
}

/** A row that ends the command without success. Nothing that can be seen changes. */
interface EndingRow<A> extends RowBase<A> {
  /** What the kernel remembers of it all the same. */
  leaves?(args: A, state: State): State;
}

/** A row that refuses the command. */
export interface Refusal<A> extends EndingRow<A> {
  readonly errno: Errno;
}

/** A row that ends the command in something other than an error number: a VM exit or a signal. */
export interface Diversion<A> extends EndingRow<A> {
  readonly result: string;
  outcome(args: A, state: State): Outcome;
}

/** A row that says where the specification takes no position. */
export interface Silence<A> extends RowBase<A> {
  readonly unmodelled: string;
}

export type Guard<A> = Refusal<A> | Diversion<A> | Silence<A>;

/** What a row answers, as far as a caller can tell rows apart by it. */
export const answerOf = <A>(guard: Guard<A>): string =>
  'errno' in guard ? guard.errno : 'result' in guard ? guard.result : 'unmodelled';

export interface Accepted {
  readonly state: State;
  /** What a successful call tells its caller. */
  readonly value?: bigint;
}

/** One way for a command to succeed; the first whose `applies` holds is taken, and the last needs none. */
export interface Acceptance<A> {
  readonly id: string;
  readonly when: string;
  readonly source?: string;
  readonly only?: Condition;
  /** Why no program can come to it on a machine, where that is so. */
  unreachable?(machine: Machine): string | undefined;
  applies?(args: A, state: State): boolean;
  accept(args: A, state: State): Accepted;
}

/** An error that the environment may cause at any time; or only in commands that no row stops, where that is said. */
export type EnvironmentError<A> =
  | Errno
  | {
      readonly errno: Errno;
      /** The end of a sentence that starts with "when". */
      readonly when: string;
      applies(args: A, state: State): boolean;
    };

export interface DrawContext {
  readonly random: Random;
  readonly state: State;
  /** A label that the program does not use yet. */
  readonly fresh: (prefix: string) => Label;
}

/** A command as data. The catalogue has the exact type of each. */
export interface AnyCommand {
  readonly name: string;
  readonly args: Args;
}

export interface Transition<N extends string = string, A = Args> {
  readonly name: N;
  readonly summary: string;
  /** What a target does for it, with the arguments by their names: the system call, where it is one. */
  readonly does: string;
  /** What the value of a successful outcome is; left out where there is none. */
  readonly tells?: string;
  readonly source: string;
  readonly args: { readonly [K in keyof A]: Domain };
  readonly only?: Condition;
  /** `guest-memory` if left out. */
  readonly realm?: Realm;
  /** What a target must be able to do for the command to make sense to it. */
  readonly requires?: Requirement;
  /** Errors that the environment may cause. */
  readonly mayAlso: readonly EnvironmentError<A>[];
  /** What such an error leaves, where that is not the state before. Nothing that can be seen at once changes. */
  leavesOnError?(args: A, state: State): State;
  /** The command may stop half-way with one of those errors and leave what it has done so far. */
  readonly mayLeavePrefix?: boolean;
  /**
   * The arguments of a command that does only what a success with this value tells, where the environment may make the
   * command succeed with less than it was asked for.
   */
  shortened?(args: A, value: bigint): A | undefined;
  /**
   * Whether the command may come to this, without effect, because another one runs at the same time: neither before it nor
   * after it would it do so.
   */
  transient?(args: A, observed: Observation): boolean;
  /** The command is several system calls, between which others may run: what it comes to at the same time as another one is not specified. */
  readonly isSequence?: true;
  /**
   * Whether the `value` that the command stores when it succeeds is a secret of the guest, which the host must not learn from any
   * of the commands behind it.
   */
  storesSecret?(args: A, state: State, later: readonly AnyCommand[]): boolean;
  /** Those read by the command who may know a secret: the guest itself, or who does something for it. */
  readonly readsSecrets?: boolean;
  readonly guards: readonly Guard<A>[];
  readonly accepts: readonly Acceptance<A>[];
  /** Makes what other commands work on, so that programs begin with such commands. */
  readonly builds?: boolean;
  /** Without it most others, or those that are rare, have nothing to work on: no program does without it by chance. */
  readonly essential?: boolean;
  /** How often the command is drawn, relative to others. */
  readonly weight: number;
  /** Arguments that should be accepted in this state, or undefined where none can be. */
  draw(context: DrawContext): A | undefined;
}

/** Stands in a list of rows for those that every command with a descriptor has. */
export interface DescriptorCheck<A> {
  /** The argument that holds the descriptor. */
  readonly descriptor: keyof A & string;
  readonly kind: FdKind;
  /** The command is an ioctl of KVM. What other system calls say to files of other kinds is not specified. */
  readonly ioctl?: true;
}

type Definition<N extends string, D extends Domains> = Omit<Transition<N, ArgsOf<D>>, 'args' | 'guards'> & {
  readonly args: D;
  readonly guards: readonly (Guard<ArgsOf<D>> | DescriptorCheck<ArgsOf<D>>)[];
};

export function defineTransition<const N extends string, D extends Domains>(
  definition: Definition<N, D>,
): Transition<N, ArgsOf<D>> {
  const guards = definition.guards.flatMap((row) =>
    'descriptor' in row ? descriptorRows<ArgsOf<D>>(definition.name, row) : [row],
  );
  return { ...definition, guards };
}

export type CommandOf<T> = T extends Transition<infer N, infer A> ? { readonly name: N; readonly args: A } : never;

/** Kinds that answer EINVAL to an ioctl which they do not know; all others answer ENOTTY. */
const ANSWER_EINVAL: readonly FdKind[] = ['device', 'vcpu'];

const NAMES: Readonly<Record<FdKind, string>> = {
  device: '/dev/kvm',
  vm: 'a VM',
  vcpu: 'a vCPU',
  gmem: 'guest memory',
  other: 'a file that is not KVM’s',
};

function descriptorRows<A extends object>(command: string, check: DescriptorCheck<A>): Guard<A>[] {
  const { descriptor, kind, ioctl } = check;
  const kindOf = (args: A, state: State): FdKind | undefined => state.fds.get(args[descriptor] as Label)?.kind;
  const named = (args: A, state: State, random: Random, kinds: (kind: FdKind) => boolean): A | undefined => {
    const label = pickOr(
      random,
      [...state.fds].filter(([, open]) => open.kind !== kind && kinds(open.kind)).map(([each]) => each),
    );
    return label === undefined ? undefined : { ...args, [descriptor]: label };
  };
  const wrong = {
    id: `${command}/wrong-descriptor`,
    violated: (args: A, state: State) => kindOf(args, state) !== kind,
  };
  return [
    {
      id: `${command}/bad-descriptor`,
      group: 'descriptor',
      errno: 'EBADF',
      when: `\`${descriptor}\` names no open file`,
      source: 'fs/file.c: fdget()',
      violated: (args, state) => kindOf(args, state) === undefined,
      violate: (args) => ({ ...args, [descriptor]: NO_FD }),
    },
    ...(ioctl === undefined
      ? [
          {
            ...wrong,
            unmodelled: 'what other kinds of files answer is not part of this specification',
            when: `\`${descriptor}\` is open but is not ${NAMES[kind]}`,
            violate: (args: A, state: State, random: Random) => named(args, state, random, () => true),
          },
        ]
      : [
          {
            id: `${command}/foreign-ioctl`,
            group: 'descriptor',
            errno: 'EINVAL' as const,
            when: `\`${descriptor}\` is ${ANSWER_EINVAL.filter((each) => each !== kind)
              .map((each) => NAMES[each])
              .join(' or ')}, which does not know the ioctl`,
            source: 'arch/x86/kvm/x86.c: kvm_arch_dev_ioctl(), kvm_arch_vcpu_ioctl()',
            violated: (args: A, state: State) => {
              const open = kindOf(args, state);
              return open !== undefined && open !== kind && ANSWER_EINVAL.includes(open);
            },
            violate: (args: A, state: State, random: Random) =>
              named(args, state, random, (each) => ANSWER_EINVAL.includes(each)),
          },
          {
            ...wrong,
            errno: 'ENOTTY' as const,
            when: `\`${descriptor}\` is any other file but ${NAMES[kind]}`,
            source: 'arch/x86/kvm/x86.c: kvm_arch_vm_ioctl(); fs/ioctl.c: vfs_ioctl()',
            violate: (args: A, state: State, random: Random) =>
              named(args, state, random, (each) => !ANSWER_EINVAL.includes(each)),
          },
        ]),
  ];
}
