/** The simulator behind the adapter contract, and the way to put a machine derived from it there. */
import { FULL_MACHINE, type Machine } from '../../model/core/machine.ts';
import type { Observation } from '../../model/core/outcome.ts';
import type { Config } from '../../model/core/profile.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import { ALL_CAPABILITIES, type Observed, type Target } from '../adapter.ts';
import { HypercallHost } from './hypercall/commands.ts';
import { SimulatorMachine } from './machine.ts';
import { McHost, newMcMachine } from './mc/commands.ts';
import { newStatusHost } from './page-status/commands.ts';
import { race, type Racing } from './race.ts';
import { SevHost } from './sev/commands.ts';
import { newTdMachine, TdHost } from './td/commands.ts';

export { HypercallHost } from './hypercall/commands.ts';
export { SimulatorMachine } from './machine.ts';
export { StatusHost } from './page-status/commands.ts';
export { McHost } from './mc/commands.ts';
export { SevHost } from './sev/commands.ts';
export { TdHost } from './td/commands.ts';

/** A machine that executes commands and looks into itself. */
export type Simulated = Racing;

function runCommand(machine: Simulated, command: AnyCommand): Observed | string {
  try {
    return { outcome: machine.run(command), facts: machine.facts() };
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function* observe(machine: Simulated, program: readonly AnyCommand[]): Generator<Observed> {
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
  create: (config: Config) => Simulated,
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

function newMachine(config: Config): Simulated {
  switch (config.profile.realm ?? 'guest-memory') {
    case 'td':
      return new TdHost(newTdMachine(config));
    case 'guest-memory':
      return new SimulatorMachine(config);
    case 'sev':
      return new SevHost(config);
    case 'hypercall':
      return new HypercallHost(config);
    case 'page-status':
      return newStatusHost(config);
    case 'mc':
      return new McHost(newMcMachine(config));
  }
}

export const simulatorTarget = (machine?: Machine): Target => machineTarget('simulator', newMachine, machine);
