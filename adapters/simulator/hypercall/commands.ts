/** What commands ask of a guest that calls the host, and of the VMM that answers. */
import type { Facts } from '../../../model/core/facts.ts';
import { fails, ok, type Errno, type Outcome } from '../../../model/core/outcome.ts';
import type { AnyCommand } from '../../../model/core/specification.ts';
import type { Label } from '../../../model/core/state.ts';
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

type Handler = (host: HypercallHost, guest: HypercallGuest, args: never) => Outcome;

const outcomeOf = (error: Errno | undefined): Outcome => (error === undefined ? ok() : fails(error));

const HANDLERS: Readonly<Record<string, Handler>> = {
  'hypercall.exits': (host, guest, { mask }: { mask: bigint }) => outcomeOf(host.enableExitHypercall(guest, mask)),
  'hypercall.quirk': (host, guest, { mask }: { mask: bigint }) => outcomeOf(host.disableQuirks2(guest, mask)),
  'hypercall.alternatives': (host, guest) => {
    host.applyAlternatives(guest);
    return ok();
  },
  'hypercall.call': (host, guest, { by, cpl, bits, nr, a0, a1, a2 }: CallArgs) => {
    guest.regs = { cpl: Number(cpl), isLong: bits === '64', rax: nr, rbx: a0, rcx: a1, rdx: a2 };
    return host.kvmRun(guest, host.placeOf(by));
  },
  'hypercall.return': (host, guest, { sets, ret }: { sets: 'yes' | 'no'; ret: bigint }) =>
    ok(host.kvmRunAgain(guest, sets === 'yes' ? ret : undefined)),
  'hypercall.close': (host, guest) => {
    host.guests.delete(guest.label);
    return ok();
  },
};

/** A host, and the kernels of its guests. Source of what is the guest's: arch/x86/include/asm/kvm_para.h. */
export class HypercallHost extends HypercallKvm {
  readonly guests = new Map<Label, HypercallGuest>();

  run(command: AnyCommand): Outcome {
    return this.execute(command);
  }

  /** There are no events here. */
  forgetEvents(): void {
    // Nothing is told that happened in between.
  }

  execute({ name, args }: AnyCommand): Outcome {
    if (name === 'hypercall.guest') return this.boot(args as unknown as GuestArgs);
    const handler = HANDLERS[name];
    if (handler === undefined) throw new Error(`the simulator has no command '${name}' in this profile`);
    const guest = this.guests.get(args['guest'] as Label);
    // Nothing is specified of a guest that is not there.
    return guest === undefined ? fails('EBADF') : handler(this, guest, args as never);
  }

  facts(): Facts {
    return {
      hypercalls: [...this.guests.values()].map(({ label, completesIo }) => ({ guest: label, pending: completesIo })),
    };
  }

  private boot({ guest: label, cpu, sev, text }: GuestArgs): Outcome {
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
