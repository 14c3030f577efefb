/** What host, VMM and kernel owe a guest after a machine check, done step by step. */
import type { McGuest } from '../model/core/machine-check.ts';
import type { Specification, Step } from '../model/core/specification.ts';
import type { Label, State } from '../model/core/state.ts';
import { parse } from './support.ts';

export function after(specification: Specification, state: State, line: string): Step {
  const [command] = parse(specification, line);
  if (command === undefined) throw new Error(`no command: ${line}`);
  return specification.step(state, command);
}

const running = (state: State, label: Label): McGuest | undefined => {
  const guest = state.mc.guests.get(label);
  return guest?.state === 'running' ? guest : undefined;
};

/** The next step of a CPU that is out of the guest, or in its handler. */
function dueOfCpus(state: State, label: Label): string | undefined {
  const cpus = running(state, label)?.cpus ?? [];
  const cpu = cpus.findIndex(({ stage }) => stage !== 'runs');
  switch (cpus[cpu]?.stage) {
    case 'host-work':
      return `host.recover guest=${label} cpu=${cpu}`;
    case 'vmm':
      return `vmm.answer guest=${label} by=${cpu}`;
    case 'machine-check':
      return `kernel.handle guest=${label} cpu=${cpu}`;
    case 'runs':
    case undefined:
      return undefined;
  }
}

/** Then work of CPUs, what the main thread was told, and the list of the worker. */
function due(state: State, label: Label): string | undefined {
  const guest = running(state, label);
  const ofCpu = dueOfCpus(state, label);
  if (guest === undefined || ofCpu !== undefined) return ofCpu;
  const by = guest.cpus.findIndex(({ work }) => work !== undefined);
  const step = by >= 0 ? guest.cpus[by]?.work?.step : guest.worker[0]?.step;
  if (step !== undefined) return `kernel.${step} guest=${label} by=${by >= 0 ? by : 'worker'}`;
  return guest.told.length > 0 ? `vmm.answer guest=${label} by=main` : undefined;
}

/** The state in which the CPUs of the guest run, unless it has ended. */
export function withCpusRunning(specification: Specification, state: State, label: Label): State {
  let now = state;
  for (let line = dueOfCpus(now, label); line !== undefined; line = dueOfCpus(now, label))
    now = after(specification, now, line).state;
  return now;
}

interface Settled {
  readonly state: State;
  readonly steps: number;
}

/** Nothing is due any more for the guest; or so many steps have been made. */
export function settled(specification: Specification, state: State, label: Label, most: number): Settled {
  let now = state;
  let steps = 0;
  for (let line = due(now, label); line !== undefined && steps < most; line = due(now, label), steps++)
    now = after(specification, now, line).state;
  return { state: now, steps };
}
