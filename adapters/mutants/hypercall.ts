/** Hosts and kernels of guests that call the host, with one mistake each. */
import { HypercallHost } from '../simulator/index.ts';
import type { HypercallGuest, Instruction, Place } from '../simulator/hypercall/guest.ts';
import type { Fault } from './fault.ts';

const LINUX = 'hypercall-linux-7.3';
const PATCHED = 'hypercall-patched';
const DEFAULT = 'hypercall-vmmcall-default';

const checks: readonly Fault[] = [
  {
    id: 'hypercall-of-user-space',
    shortest: 2,
    profile: LINUX,
    fault: 'serves hypercalls that the guest’s user space makes',
    machine: class extends HypercallHost {
      override checkCpl(): undefined {
        return undefined;
      }
    },
  },
  {
    id: 'hypercall-range-wraps',
    shortest: 3,
    profile: LINUX,
    fault: 'asks the VMM for a range of frames that wraps',
    machine: class extends HypercallHost {
      override isMapGpaRange(gpa: bigint, npages: bigint): boolean {
        return super.isMapGpaRange(gpa, npages === 0n ? 0n : 1n);
      }
    },
  },
  {
    id: 'hypercall-exits-unasked',
    shortest: 2,
    profile: LINUX,
    fault: 'exits to a VMM that has not asked for such exits',
    machine: class extends HypercallHost {
      override userExitOnHypercall(): boolean {
        return true;
      }
    },
  },
  {
    id: 'hypercall-ret-not-preset',
    shortest: 5,
    profile: LINUX,
    fault: 'exits with whatever an earlier call has left in `ret`, which a VMM that sets none gives to the guest',
    machine: class extends HypercallHost {
      override presetRet({ run }: HypercallGuest): bigint {
        return run?.ret ?? 0n;
      }
    },
  },
  {
    id: 'compatibility-mode-ignored',
    shortest: 2,
    profile: LINUX,
    fault: 'reads and writes whole registers for a guest in compatibility mode',
    machine: class extends HypercallHost {
      override readRegister(_guest: HypercallGuest, value: bigint): bigint {
        return value;
      }
    },
  },
];

const patching: readonly Fault[] = [
  {
    id: 'quirk-patches-wrong-opcode',
    shortest: 2,
    profile: LINUX,
    fault: 'patches in the instruction of the other vendor',
    machine: class extends HypercallHost {
      override patchHypercall(guest: HypercallGuest): Instruction {
        return super.patchHypercall(guest) === 'vmcall' ? 'vmmcall' : 'vmcall';
      }
    },
  },
  {
    id: 'quirk-always-on',
    shortest: 3,
    profile: LINUX,
    fault: 'patches although the VMM has disabled the quirk',
    machine: class extends HypercallHost {
      override kvmCheckHasQuirk(): boolean {
        return true;
      }
    },
  },
  {
    id: 'quirk-comes-back',
    shortest: 4,
    profile: LINUX,
    fault: 'takes what is disabled last for all that is disabled',
    machine: class extends HypercallHost {
      override disableQuirks2(
        ...args: Parameters<HypercallHost['disableQuirks2']>
      ): ReturnType<HypercallHost['disableQuirks2']> {
        const [guest, mask] = args;
        const error = super.disableQuirks2(...args);
        if (error === undefined) guest.disabledQuirks = mask;
        return error;
      }
    },
  },
  {
    id: 'read-only-text-patched',
    shortest: 2,
    profile: LINUX,
    fault: 'patches text that the guest must not write to',
    machine: class extends HypercallHost {
      override emulatorFixHypercall(
        ...[guest, place]: Parameters<HypercallHost['emulatorFixHypercall']>
      ): ReturnType<HypercallHost['emulatorFixHypercall']> {
        return super.emulatorFixHypercall(Object.assign(guest, { isTextWritable: true }), place);
      }
    },
  },
  {
    id: 'ciphertext-decoded',
    shortest: 2,
    profile: LINUX,
    fault: 'intercepts #UD for guests of SEV, whose instructions it cannot read',
    machine: class extends HypercallHost {
      override interceptsUd(): boolean {
        return true;
      }
    },
  },
  {
    id: 'encrypted-text-read',
    shortest: 2,
    profile: PATCHED,
    fault: 'takes for granted that the text of a guest can be read, and patches that of a guest of SEV',
    machine: class extends HypercallHost {
      override fetch({ text }: HypercallGuest, place: Place): Instruction | undefined {
        return text.get(place);
      }
    },
  },
];

const kernels: readonly Fault[] = [
  {
    id: 'announcement-by-vmcall',
    shortest: 2,
    profile: LINUX,
    fault: 'announces with what ordinary hypercalls use, which is VMCALL until alternatives are applied',
    machine: class extends HypercallHost {
      override placeOf(by: Place): Place {
        return by === 'announcement' ? 'ordinary' : by;
      }
    },
  },
  {
    id: 'alternatives-not-applied',
    shortest: 3,
    profile: PATCHED,
    fault: 'leaves VMCALL where it is on processors that have VMMCALL',
    machine: class extends HypercallHost {
      override applyAlternatives(): void {
        // The text stays as it was compiled.
      }
    },
  },
  {
    id: 'alternatives-not-inverted',
    shortest: 3,
    profile: DEFAULT,
    fault: 'compiles VMMCALL in, and does not opt into VMCALL on Intel',
    machine: class extends HypercallHost {
      override applyAlternatives(): void {
        // The text stays as it was compiled.
      }
    },
  },
];

export const HYPERCALL_FAULTS: readonly Fault[] = [...checks, ...patching, ...kernels];
