/** From a program to a C file that does the same on a kernel. */
import { printC } from '../adapters/linux/c-source.ts';
import { NotExecutable } from '../adapters/linux/lower.ts';
import { reproduce } from '../adapters/linux/reproducer.ts';
import { modelHash } from '../conformance/model-hash.ts';
import { encodeToken } from '../conformance/token.ts';
import type { ProgramVerdict } from '../conformance/verdict.ts';
import { printProgram } from '../model/core/program.ts';
import { VERSION } from '../report/installation.ts';
import { aboutReproducer } from '../report/reproducer.ts';
import { describe } from '../report/terminal.ts';
import { UsageError } from './errors.ts';
import type { Loaded } from './input.ts';

/** The text of the file, once there is a verdict. Throws a UsageError where no kernel can execute the program. */
export function reproducerOf(loaded: Loaded): (verdict: ProgramVerdict) => string {
  const { specification, target, program, title } = loaded;
  const reproducer = reproduced(loaded);
  return (verdict) => {
    const token = encodeToken({
      program: printProgram(specification, program),
      profile: specification.config.profile.id,
      target: target.name,
      modelHash: modelHash(),
    });
    const rules = reproducer.expectations.map(({ rule }) => rule);
    const subject = { specification, title, rules, verdict, target: describe(target), token, version: VERSION };
    return printC({ ...reproducer, about: aboutReproducer(subject) });
  };
}

function reproduced({ specification, program, place }: Loaded): ReturnType<typeof reproduce> {
  try {
    const reproducer = reproduce(specification, program);
    if (reproducer.expectations.length > 0) return reproducer;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    const at = error instanceof NotExecutable ? error.at : 0;
    throw new UsageError(`${place(at)}: no C for it: ${error.message}`);
  }
  throw new UsageError(`${place(0)}: no C for it: the specification takes no position on the first command`);
}
