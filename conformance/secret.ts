/**
 * `memory/private-is-secret`: two runs that differ only in what a guest stored in private memory give the host the same
 * observations.
 */
import type { Observed } from '../adapters/adapter.ts';
import { printOutcome, sameOutcome } from '../model/core/outcome.ts';
import type { Program } from '../model/core/program.ts';
import type { Specification, Step } from '../model/core/specification.ts';
import { expectationsOf, type Checking } from './check.ts';
import { inconclusive, observe } from './observe.ts';
import type { Divergence, ProgramVerdict } from './verdict.ts';

export const SECRECY = {
  id: 'memory/private-is-secret',
  sentence: 'Two runs that differ only in what a guest stored in private memory give the host the same observations.',
  source: 'virt/kvm/guest_memfd.c: kvm_gmem_fault_user_mapping()',
  only: { realm: ['guest-memory', 'td'] },
} as const;

/** Changes each byte of a secret, so that a leak of any part of it shows. */
const EVERY_BYTE = 0xa5c3_5a3c_96e7_1db9n;

/**
 * The program with other secrets, or undefined where the guest stores none. `trace` is what the specification expects
 * along the way, where the caller knows it already.
 */
export function twinOf(specification: Specification, program: Program, trace?: readonly Step[]): Program | undefined {
  let state = specification.initial;
  const twin = program.map((command, at) => {
    const before = state;
    const step = trace?.[at] ?? specification.step(before, command);
    state = step.state;
    if (step.outcome.kind !== 'ok' || step.unmodelled !== undefined) return command;
    const transition = specification.transition(command.name);
    if (transition.storesSecret?.(command.args, before, program.slice(at + 1)) !== true) return command;
    return { name: command.name, args: { ...command.args, value: (command.args['value'] as bigint) ^ EVERY_BYTE } };
  });
  return twin.some((command, at) => command !== program[at]) ? twin : undefined;
}

/** Runs the program and its twin on the target. A program without secrets conforms at once. */
export async function checkSecrecy(
  checking: Checking,
  program: Program,
  trace?: readonly Step[],
): Promise<ProgramVerdict> {
  const twin = twinOf(checking.specification, program, trace);
  if (twin === undefined) return { kind: 'conforms', commands: 0 };
  try {
    const { specification } = checking;
    const run = { program, expected: trace ?? expectationsOf(specification, program) };
    const twinRun = { program: twin, expected: expectationsOf(specification, twin) };
    // With another secret the guest's tables may lead to where the specification is silent.
    if (twinRun.expected.some(({ unmodelled }) => unmodelled !== undefined)) return { kind: 'conforms', commands: 0 };
    const [one, other] = [await observations(checking, program), await observations(checking, twin)];
    if (isDisturbed(run, one) || isDisturbed(twinRun, other)) return { kind: 'conforms', commands: 0 };
    const told = tell(specification, run, twinRun, one, other);
    if (told !== undefined) return told;
    if (one.length < program.length || other.length < program.length)
      return { kind: 'inconclusive', reason: 'the target was gone before the end of the program' };
    return { kind: 'conforms', commands: program.length };
  } catch (error) {
    return inconclusive(error);
  }
}

const observations = async (checking: Checking, program: Program): Promise<readonly Observed[]> => [
  ...(await observe(checking.target, program, checking.specification.config.profile, { ...checking, facts: false })),
];

interface Run {
  readonly program: Program;
  readonly expected: readonly Step[];
}

/** After an error that the environment caused, what was a secret by the specification may go to shared memory. */
const isDisturbed = ({ expected }: Run, observed: readonly Observed[]): boolean =>
  expected.some(({ mayAlso, outcome: wanted }, at) => {
    const outcome = observed[at]?.outcome;
    return (
      outcome !== undefined && 'errno' in outcome && mayAlso.includes(outcome.errno) && !sameOutcome(wanted, outcome)
    );
  });

/** Whether the specification itself has it that the command reads a secret. */
const readsSecret = (specification: Specification, run: Run, twin: Run, at: number): boolean => {
  const [one, other] = [run.expected[at]?.outcome, twin.expected[at]?.outcome];
  const command = run.program[at];
  return (
    command !== undefined &&
    specification.transition(command.name).readsSecrets === true &&
    one !== undefined &&
    other !== undefined &&
    !sameOutcome(one, other)
  );
};

function tell(
  specification: Specification,
  run: Run,
  twin: Run,
  one: readonly Observed[],
  other: readonly Observed[],
): Divergence | undefined {
  for (const at of run.program.keys()) {
    const [a, b] = [one[at]?.outcome, other[at]?.outcome];
    if (a === undefined || b === undefined || sameOutcome(a, b) || readsSecret(specification, run, twin, at)) continue;
    return {
      kind: 'diverges',
      at,
      rule: SECRECY.id,
      invariant: SECRECY.id,
      expected: SECRECY.sentence,
      observed: `the host saw ${printOutcome(a)} with one secret and ${printOutcome(b)} with another`,
      twin: twin.program,
    };
  }
  return undefined;
}
