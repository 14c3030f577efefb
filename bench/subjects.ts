import type { Target } from '../adapters/adapter.ts';
import type { Mutant } from '../adapters/mutants/index.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { DEFAULT_PROFILE, profileById, type Machine } from '../model/core/profile.ts';
import type { Program } from '../model/core/program.ts';
import { Specification } from '../model/core/specification.ts';

/** The longest program of each contestant; each draws lengths evenly up to it. */
export const MAX_COMMANDS = 80;

export const specify = (machine: Machine, profile = DEFAULT_PROFILE): Specification =>
  new Specification({ profile: profileById(profile), machine }, CATALOGUE);

export const specifyFor = ({ profile, target }: Mutant): Specification => specify(target.machine, profile);

export interface Counter {
  programs: number;
  commands: number;
}

/** The same target, and how much it has executed. */
export function counted(target: Target): { readonly target: Target; readonly counter: Counter } {
  const counter: Counter = { programs: 0, commands: 0 };
  const execute: Target['execute'] = (program, profile) => {
    counter.programs++;
    counter.commands += program.length;
    return target.execute(program, profile);
  };
  return { target: { ...target, execute }, counter };
}

/** Has a target of this process execute the whole program. */
export function execute(target: Target, specification: Specification, program: Program): void {
  const observations = target.execute(program, specification.config.profile);
  if (observations instanceof Promise) throw new TypeError(`target ${target.name} does not live in this process`);
  const iterator = observations[Symbol.iterator]();
  while (iterator.next().done !== true);
}
