/** A program of the model as a C file: what is expected of each command, and of what machines. */
import { CATALOGUE } from '../../model/catalogue.ts';
import { ATTRIBUTE_PRIVATE } from '../../model/core/abi.ts';
import { sameOutcome } from '../../model/core/outcome.ts';
import type { Machine } from '../../model/core/profile.ts';
import { printCommand, type Program } from '../../model/core/program.ts';
import { Specification, type Step } from '../../model/core/specification.ts';
import type { Reproducer, Requirement } from './c-source.ts';
import { lower, NotExecutable, type LoweredProgram } from './lower.ts';
import { PROGRAM_MEMORY } from './probe.ts';

/** All of the file but for the comment at its top. Throws NotExecutable where it takes more than a kernel. */
export function reproduce(specification: Specification, program: Program): Omit<Reproducer, 'about'> {
  const expected = expectedOf(specification, program);
  const executed = program.slice(0, expected.length);
  return {
    lowered: lowerAnyway(executed, specification.config.machine),
    expectations: expected.map((step, index) => ({
      ...step,
      command: printCommand(specification, executed[index] as Program[number]),
    })),
    requirements: requirementsOf(specification, program, expected),
  };
}

/** A machine with more memory than any kernel gives a program, in which slots may leave no room for anything else. */
function lowerAnyway(program: Program, machine: Machine): LoweredProgram {
  try {
    return lower(program, machine);
  } catch (error) {
    if (error instanceof NotExecutable || machine.memoryBytes <= PROGRAM_MEMORY) throw error;
    return lower(program, { ...machine, memoryBytes: PROGRAM_MEMORY });
  }
}

/** What is expected of each command, up to where the specification falls silent: nothing from there on is executed. */
function expectedOf(specification: Specification, program: Program): readonly Step[] {
  let { initial: state } = specification;
  const steps: Step[] = [];
  for (const command of program) {
    const step = specification.step(state, command);
    if (step.unmodelled !== undefined) break;
    steps.push(step);
    ({ state } = step);
  }
  return steps;
}

/** Traits of a machine by which expectations may differ, each with another that differs in nothing else. */
const traitsOf = (machine: Machine): readonly (readonly [Machine, Requirement])[] => [
  ...[0n, 1n, 2n, 3n, 4n, 5n].map((type): readonly [Machine, Requirement] => [
    { ...machine, vmTypes: machine.vmTypes ^ (1n << type) },
    { capability: 'KVM_CAP_VM_TYPES', mask: 1n << type, value: machine.vmTypes & (1n << type) },
  ]),
  [
    { ...machine, memoryAttributes: !machine.memoryAttributes },
    {
      capability: 'KVM_CAP_MEMORY_ATTRIBUTES',
      mask: ATTRIBUTE_PRIVATE,
      value: machine.memoryAttributes ? ATTRIBUTE_PRIVATE : 0n,
    },
  ],
  [
    { ...machine, twoDimensionalPaging: !machine.twoDimensionalPaging },
    { capability: 'KVM_CAP_PRE_FAULT_MEMORY', mask: 1n, value: machine.twoDimensionalPaging ? 1n : 0n },
  ],
  [
    { ...machine, addressSpaces: machine.addressSpaces > 1 ? 1 : 2 },
    { capability: 'KVM_CAP_MULTI_ADDRESS_SPACE', mask: 2n, value: machine.addressSpaces > 1 ? 2n : 0n },
  ],
];

/** The traits of the machine without which the program would be expected to do something else. */
const requirementsOf = (
  { config: { profile, machine } }: Specification,
  program: Program,
  expected: readonly Step[],
): readonly Requirement[] =>
  traitsOf(machine)
    .filter(([other]) => {
      const there = expectedOf(new Specification({ profile, machine: other }, CATALOGUE), program);
      return (
        there.length !== expected.length ||
        there.some(({ outcome }, index) => !sameOutcome(outcome, (expected[index] as Step).outcome))
      );
    })
    .map(([, requirement]) => requirement);
