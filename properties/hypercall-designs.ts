/** What becomes of a call to the host: by each instruction, before and after alternatives, with and without SEV. */
import { expectationsOf } from '../conformance/check.ts';
import { printOutcome } from '../model/core/outcome.ts';
import { parse, specify } from './support.ts';

export interface HypercallMachine {
  readonly what: string;
  readonly cpu: 'amd' | 'intel';
  readonly sev: 'yes' | 'no';
}

export const HYPERCALL_MACHINES: readonly HypercallMachine[] = [
  { what: 'Intel', cpu: 'intel', sev: 'no' },
  { what: 'AMD', cpu: 'amd', sev: 'no' },
  { what: 'AMD with SEV', cpu: 'amd', sev: 'yes' },
];

export interface HypercallWay {
  readonly what: string;
  readonly by: 'vmcall' | 'vmmcall' | 'ordinary' | 'announcement';
  /** Alternatives were applied, which raw instructions are not part of. */
  readonly isPatched?: boolean;
}

export const HYPERCALL_WAYS: readonly HypercallWay[] = [
  { what: 'announcement, before alternatives', by: 'announcement' },
  { what: 'announcement, after', by: 'announcement', isPatched: true },
  { what: 'other hypercall, before alternatives', by: 'ordinary' },
  { what: 'other hypercall, after', by: 'ordinary', isPatched: true },
  { what: 'VMCALL', by: 'vmcall' },
  { what: 'VMMCALL', by: 'vmmcall' },
];

const programOf = (
  { cpu, sev }: HypercallMachine,
  { by, isPatched = false }: HypercallWay,
  hasQuirk: boolean,
): string =>
  [
    `hypercall.guest guest=guest0 cpu=${cpu} sev=${sev} text=writable`,
    'hypercall.exits guest=guest0 mask=0x1000',
    ...(hasQuirk ? [] : ['hypercall.quirk guest=guest0 mask=0x20']),
    ...(isPatched ? ['hypercall.alternatives guest=guest0'] : []),
    `hypercall.call guest=guest0 by=${by} cpl=0 bits=64 nr=12 a0=0x1000 a1=1 a2=0x10`,
    '',
  ].join('\n');

/** What the call comes to: the exit, or what the guest gets. */
export function calledIn(profile: string, machine: HypercallMachine, way: HypercallWay, hasQuirk = true): string {
  const specification = specify(profile);
  const program = parse(specification, programOf(machine, way, hasQuirk));
  const outcome = expectationsOf(specification, program).at(-1)?.outcome;
  if (outcome === undefined) throw new Error(`nothing is specified of ${way.what} in ${profile}`);
  return outcome.kind === 'hypercall' ? 'exit' : printOutcome(outcome);
}
