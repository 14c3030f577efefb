/** What commands ask of a guest that calls the host, and of the VMM that answers. */
import type { Facts } from '../../../model/core/facts.ts';
import { fails, ok, type Outcome } from '../../../model/core/outcome.ts';
import type { AnyCommand } from '../../../model/core/specification.ts';
import type { Label } from '../../../model/core/state.ts';
import { performOn } from '../host.ts';
import { outcomeOf } from '../kernel.ts';
import { newGuest, type HypercallGuest, type Instruction, type Place, type Processor } from './guest.ts';
import { HypercallKvm } from './kvm.ts';

interface GuestArgs {
  readonly guest: Label;
  readonly cpu: Processor;
  readonly sev: 'yes' | 'no';
  readonly text: 'writable' | 'read-only';
}

interface CallArgs {
  readonly by: Place;
  readonly cpl: '0' | '3';
  readonly bits: '64' | '32';
  readonly nr: bigint;
  readonly a0: bigint;
  readonly a1: bigint;
  readonly a2: bigint;
}

type Handler = (machine: HypercallMachine, guest: HypercallGuest, args: never) => Outcome;

const HANDLERS: Readonly<Record<string, Handler>> = {
  'hypercall.exits': (machine, guest, { mask }: { mask: bigint }) =>
    outcomeOf(machine.enableExitHypercall(guest, mask)),
  'hypercall.quirk': (machine, guest, { mask }: { mask: bigint }) => outcomeOf(machine.disableQuirks2(guest, mask)),
  'hypercall.alternatives': (machine, guest) => {
    machine.applyAlternatives(guest);
    return ok();
  },
  'hypercall.call': (machine, guest, { by, cpl, bits, nr, a0, a1, a2 }: CallArgs) => {
    guest.regs = { cpl: Number(cpl), isLong: bits === '64', rax: nr, rbx: a0, rcx: a1, rdx: a2 };
    return machine.kvmRun(guest, machine.placeOf(by));
  },
  'hypercall.return': (machine, guest, { sets, ret }: { sets: 'yes' | 'no'; ret: bigint }) =>
    ok(machine.kvmRunAgain(guest, sets === 'yes' ? ret : undefined)),
  'hypercall.close': (machine, guest) => {
    machine.guests.delete(guest.label);
    return ok();
  },
};

/** A host, and the kernels of its guests. Source of what is the guest's: arch/x86/include/asm/kvm_para.h. */
export class HypercallMachine extends HypercallKvm {
  readonly guests = new Map<Label, HypercallGuest>();

  facts(): Facts {
    return {
      hypercalls: [...this.guests.values()].map(({ label, completesIo }) => ({ guest: label, pending: completesIo })),
    };
  }

  boot({ guest: label, cpu, sev, text }: GuestArgs): Outcome {
    if (sev === 'yes' && cpu === 'intel') return fails('EINVAL');
    const ordinary = this.ordinaryInstruction();
    this.guests.set(
      label,
      newGuest({
        label,
        cpu,
        sev: sev === 'yes',
        text: new Map<Place, Instruction>([
          ['vmcall', 'vmcall'],
          ['vmmcall', 'vmmcall'],
          ['ordinary', ordinary],
          // kvm_sev_hypercall3()
          ['announcement', 'vmmcall'],
        ]),
        isTextWritable: text === 'writable',
      }),
    );
    return ok();
  }

  /** KVM_HYPERCALL: what stands there until alternatives are applied. */
  private ordinaryInstruction(): Instruction {
    return this.has('hypercall-vmmcall-default') ? 'vmmcall' : 'vmcall';
  }

  /**
   * apply_alternatives(): the text is replaced where the processor has the feature, X86_FEATURE_VMMCALL or its inverse, and
   * is left as it is where it has not.
   */
  applyAlternatives({ cpu, text }: HypercallGuest): void {
    if (this.has('hypercall-vmmcall-default')) {
      if (cpu === 'intel') text.set('ordinary', 'vmcall');
    } else if (cpu === 'amd') text.set('ordinary', 'vmmcall');
  }

  /** Only since kvm_sev_hypercall3() have announcements an instruction of their own. */
  placeOf(by: Place): Place {
    if (by !== 'announcement') return by;
    return this.has('hypercall-patched') || this.has('hypercall-vmmcall-default') ? 'ordinary' : by;
  }
}

export function performHypercall(machine: HypercallMachine, command: AnyCommand): Outcome {
  const args = command.args as unknown as GuestArgs;
  return command.name === 'hypercall.guest' ? machine.boot(args) : performOn(machine, HANDLERS, args.guest, command);
}
