/** The simulator behind the adapter contract, and the way to put a machine derived from it there. */
import { FULL_MACHINE, type Machine } from '../../model/core/machine.ts';
import type { Observation } from '../../model/core/outcome.ts';
import type { Config } from '../../model/core/profile.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import { ALL_CAPABILITIES, type Observed, type Target } from '../adapter.ts';
import { Host } from './host.ts';
import { HypercallMachine, performHypercall } from './hypercall/commands.ts';
import { SimulatorMachine } from './machine.ts';
import { newMcMachine, performMc } from './mc/commands.ts';
import { performStatus } from './page-status/commands.ts';
import { StatusMachine } from './page-status/vmm.ts';
import { race, type Racing } from './race.ts';
import { SevHost } from './sev/commands.ts';
import { newTdMachine, performTd } from './td/commands.ts';

export { SevHost, SimulatorMachine };

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

/** The machine whose rules are those of the profile. */
export function newSimulated(config: Config): Simulated {
  switch (config.profile.realm ?? 'guest-memory') {
    case 'td':
      return new Host(newTdMachine(config), performTd);
    case 'guest-memory':
      return new SimulatorMachine(config);
    case 'sev':
      return new SevHost(config);
    case 'hypercall':
      return new Host(new HypercallMachine(config), performHypercall);
    case 'page-status':
      return new Host(new StatusMachine(config), performStatus);
    case 'mc':
      return new Host(newMcMachine(config), performMc);
  }
}

export const simulatorTarget = (machine?: Machine): Target => machineTarget('simulator', newSimulated, machine);
