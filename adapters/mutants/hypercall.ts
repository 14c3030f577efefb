/** Hosts and kernels of guests that call the host, with one mistake each. */
import { hostOf } from '../simulator/host.ts';
import { HypercallMachine, performHypercall } from '../simulator/hypercall/commands.ts';
import type { HypercallGuest, Instruction, Place } from '../simulator/hypercall/guest.ts';
import type { Fault } from './fault.ts';

const host = hostOf(performHypercall);

const LINUX = 'hypercall-linux-7.3';
const PATCHED = 'hypercall-patched';
const DEFAULT = 'hypercall-vmmcall-default';

const checks: readonly Fault[] = [
  {
    id: 'hypercall-of-user-space',
    shortest: 2,
    profile: LINUX,
    fault: 'serves hypercalls that the guest’s user space makes',
    machine: host(
      class extends HypercallMachine {
        override checkCpl(): undefined {
          return undefined;
        }
      },
    ),
  },
  {
    id: 'hypercall-range-wraps',
    shortest: 3,
    profile: LINUX,
    fault: 'asks the VMM for a range of frames that wraps',
    machine: host(
      class extends HypercallMachine {
        override isMapGpaRange(gpa: bigint, npages: bigint): boolean {
          return super.isMapGpaRange(gpa, npages === 0n ? 0n : 1n);
        }
      },
    ),
  },
  {
    id: 'hypercall-exits-unasked',
    shortest: 2,
    profile: LINUX,
    fault: 'exits to a VMM that has not asked for such exits',
    machine: host(
      class extends HypercallMachine {
        override userExitOnHypercall(): boolean {
          return true;
        }
      },
    ),
  },
  {
    id: 'hypercall-ret-not-preset',
    shortest: 5,
    profile: LINUX,
    fault: 'exits with whatever an earlier call has left in `ret`, which a VMM that sets none gives to the guest',
    machine: host(
      class extends HypercallMachine {
        override presetRet({ run }: HypercallGuest): bigint {
          return run?.ret ?? 0n;
        }
      },
    ),
  },
  {
    id: 'compatibility-mode-ignored',
    shortest: 2,
    profile: LINUX,
    fault: 'reads and writes whole registers for a guest in compatibility mode',
    machine: host(
      class extends HypercallMachine {
        override readRegister(_guest: HypercallGuest, value: bigint): bigint {
          return value;
        }
      },
    ),
  },
];

const patching: readonly Fault[] = [
  {
    id: 'quirk-patches-wrong-opcode',
    shortest: 2,
    profile: LINUX,
    fault: 'patches in the instruction of the other vendor',
    machine: host(
      class extends HypercallMachine {
        override patchHypercall(guest: HypercallGuest): Instruction {
          return super.patchHypercall(guest) === 'vmcall' ? 'vmmcall' : 'vmcall';
        }
      },
    ),
  },
  {
    id: 'quirk-always-on',
    shortest: 3,
    profile: LINUX,
    fault: 'patches although the VMM has disabled the quirk',
    machine: host(
      class extends HypercallMachine {
        override kvmCheckHasQuirk(): boolean {
          return true;
        }
      },
    ),
  },
  {
    id: 'quirk-comes-back',
    shortest: 4,
    profile: LINUX,
    fault: 'takes what is disabled last for all that is disabled',
    machine: host(
      class extends HypercallMachine {
        override disableQuirks2(
          ...args: Parameters<HypercallMachine['disableQuirks2']>
        ): ReturnType<HypercallMachine['disableQuirks2']> {
          const [guest, mask] = args;
          const error = super.disableQuirks2(...args);
          if (error === undefined) guest.disabledQuirks = mask;
          return error;
        }
      },
    ),
  },
  {
    id: 'read-only-text-patched',
    shortest: 2,
    profile: LINUX,
    fault: 'patches text that the guest must not write to',
    machine: host(
      class extends HypercallMachine {
        override emulatorFixHypercall(
          ...[guest, place]: Parameters<HypercallMachine['emulatorFixHypercall']>
        ): ReturnType<HypercallMachine['emulatorFixHypercall']> {
          return super.emulatorFixHypercall(Object.assign(guest, { isTextWritable: true }), place);
        }
      },
    ),
  },
  {
    id: 'ciphertext-decoded',
    shortest: 2,
    profile: LINUX,
    fault: 'intercepts #UD for guests of SEV, whose instructions it cannot read',
    machine: host(
      class extends HypercallMachine {
        override interceptsUd(): boolean {
          return true;
        }
      },
    ),
  },
  {
    id: 'encrypted-text-read',
    shortest: 2,
    profile: PATCHED,
    fault: 'takes for granted that the text of a guest can be read, and patches that of a guest of SEV',
    machine: host(
      class extends HypercallMachine {
        override fetch({ text }: HypercallGuest, place: Place): Instruction | undefined {
          return text.get(place);
        }
      },
    ),
  },
];

const kernels: readonly Fault[] = [
  {
    id: 'announcement-by-vmcall',
    shortest: 2,
    profile: LINUX,
    fault: 'announces with what ordinary hypercalls use, which is VMCALL until alternatives are applied',
    machine: host(
      class extends HypercallMachine {
        override placeOf(by: Place): Place {
          return by === 'announcement' ? 'ordinary' : by;
        }
      },
    ),
  },
  {
    id: 'alternatives-not-applied',
    shortest: 3,
    profile: PATCHED,
    fault: 'leaves VMCALL where it is on processors that have VMMCALL',
    machine: host(
      class extends HypercallMachine {
        override applyAlternatives(): void {
          // The text stays as it was compiled.
        }
      },
    ),
  },
  {
    id: 'alternatives-not-inverted',
    shortest: 3,
    profile: DEFAULT,
    fault: 'compiles VMMCALL in, and does not opt into VMCALL on Intel',
    machine: host(
      class extends HypercallMachine {
        override applyAlternatives(): void {
          // The text stays as it was compiled.
        }
      },
    ),
  },
];

export const HYPERCALL_FAULTS: readonly Fault[] = [...checks, ...patching, ...kernels];
