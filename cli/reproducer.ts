/** From a program to a C file that does the same on a kernel. */
import { printC, type Requirement } from '../adapters/linux/c-source.ts';
import { lower, NotExecutable } from '../adapters/linux/lower.ts';
import { modelHash } from '../conformance/model-hash.ts';
import { encodeToken } from '../conformance/token.ts';
import type { ProgramVerdict } from '../conformance/verdict.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { ATTRIBUTE_PRIVATE } from '../model/core/abi.ts';
import { sameOutcome } from '../model/core/outcome.ts';
import type { Machine } from '../model/core/profile.ts';
import { printCommand, printProgram, type Program } from '../model/core/program.ts';
import { Specification, type Step } from '../model/core/specification.ts';
import { aboutReproducer } from '../report/reproducer.ts';
import { describe } from '../report/terminal.ts';
import { UsageError } from './errors.ts';
import type { Loaded } from './input.ts';
import { VERSION } from './version.ts';

/** The text of the file, once there is a verdict. Throws a UsageError where no kernel can execute the program. */
export function reproducerOf(loaded: Loaded): (verdict: ProgramVerdict) => string {
  const { specification, target, program, place, title } = loaded;
  const expected = expectedOf(specification, program);
  const lowered = loweredOf(program.slice(0, expected.length), specification.config.machine, place);
  const expectations = expected.map((step, index) => ({
    command: printCommand(specification, program[index] as Program[number]),
    ...step,
  }));
  const requirements = requirementsOf(specification, program, expected);
  return (verdict) => {
    const token = encodeToken({
      program: printProgram(specification, program),
      profile: specification.config.profile.id,
      target: target.name,
      modelHash: modelHash(),
    });
    const subject = { specification, title, expected, verdict, target: describe(target), token, version: VERSION };
    return printC({ lowered, expectations, requirements, about: aboutReproducer(subject) });
  };
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

function loweredOf(program: Program, machine: Machine, place: Loaded['place']): ReturnType<typeof lower> {
  if (program.length === 0)
    throw new UsageError(`${place(0)}: no C for it: the specification takes no position on the first command`);
  try {
    return lower(program, machine);
  } catch (error) {
    throw error instanceof NotExecutable ? new UsageError(`${place(error.at)}: no C for it: ${error.message}`) : error;
  }
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
