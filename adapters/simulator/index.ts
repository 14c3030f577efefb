/** The simulator behind the adapter contract, and the way to put a machine derived from it there. */
import { FULL_MACHINE, type Machine } from '../../model/core/machine.ts';
import type { Observation } from '../../model/core/outcome.ts';
import type { Config } from '../../model/core/profile.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import { ALL_CAPABILITIES, type Observed, type Target } from '../adapter.ts';
import { SimulatorMachine } from './machine.ts';
import { race } from './race.ts';

export { SimulatorMachine } from './machine.ts';

function runCommand(machine: SimulatorMachine, command: AnyCommand): Observed | string {
  try {
    return { outcome: machine.run(command), facts: machine.facts() };
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function* observe(machine: SimulatorMachine, program: readonly AnyCommand[]): Generator<Observed> {
  for (const command of program) {
    const observed = runCommand(machine, command);
    if (typeof observed === 'string') {
      const outcome: Observation = { kind: 'crash', message: observed };
      yield { outcome };
      return;
    }
    yield observed;
  }
}

/** A target whose programs each run on a fresh machine made by `create`. */
export function machineTarget(
  name: string,
  create: (config: Config) => SimulatorMachine,
  machine: Machine = FULL_MACHINE,
): Target {
  return {
    name,
    machine,
    capabilities: new Set(ALL_CAPABILITIES),
    execute: (program, profile) => observe(create({ profile, machine }), program),
    race: (program, profile, schedule) => race(create({ profile, machine }), program, schedule),
  };
}

export const simulatorTarget = (machine?: Machine): Target =>
  machineTarget('simulator', (config) => new SimulatorMachine(config), machine);
