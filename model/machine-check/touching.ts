/** What it comes to when somebody touches a line of a guest frame: nothing, a machine check, or an exit to the VMM. */
import { PAGE_SHIFT } from '../core/abi.ts';
import type { McHow, McPage, McTouch, TouchEvent } from '../core/machine-check.ts';
import type { Outcome } from '../core/outcome.ts';
import type { Label, State } from '../core/state.ts';
import type { Guard } from '../core/transition.ts';
import { cpuOf, guestOf, isPoison, isVirtual, lineOf, pageOf, withCpu } from './machine.ts';
import type { OnFrame } from './rows.ts';

/** Ways that need what is in the line: a store and a flush do not. */
const CONSUMING: ReadonlySet<McHow> = new Set(['load', 'fetch', 'walk', 'copyin', 'copy']);

export const isConsumed = (page: McPage, line: string, how: McHow): boolean => {
  const found = lineOf(page, line);
  return found !== undefined && isPoison(found) && CONSUMING.has(how);
};

export const toVmm = (code: 'AR' | 'none'): Outcome => ({ kind: 'sigbus', to: 'vmm', code });
export const toTask = (code: 'AR' | 'none'): Outcome => ({ kind: 'sigbus', to: 'task', code });
export const RAISED: Outcome = { kind: 'machine-check', ends: 'nobody' };

/** What the VMM is told of a touch of a page that the host took. */
export const exitOf = (state: State, label: Label, gfn: string): Outcome =>
  guestOf(state, label).memory === 'ordinary'
    ? toVmm('AR')
    : { kind: 'memory-fault', errno: 'EHWPOISON', gpa: BigInt(gfn) << PAGE_SHIFT, private: true };

/** The CPU has left the guest because of a touch of a page that the host took. */
export function exited(
  state: State,
  label: Label,
  cpu: string,
  touch: McTouch & { readonly how: McHow },
  line: string,
): State {
  return withCpu(state, label, cpu, { stage: 'vmm', touch }, { touches: [eventOf(label, touch, line)] });
}

const eventOf = (vm: Label, { gfn, context, how }: McTouch & { readonly how: McHow }, line: string): TouchEvent => ({
  ...{ vm, gfn: Number(gfn), line: Number(line), how, comesTo: 'machine-check' },
  by: context === 'user' || context === 'copyin' ? 'task' : 'kernel',
});

/** The hardware has raised a machine check: in the guest's kernel where nobody is below it, or else in the host. */
export function raised(
  state: State,
  label: Label,
  cpu: string,
  touch: McTouch & { readonly how: McHow },
  line: string,
): State {
  if (isVirtual(state)) return withCpu(state, label, cpu, { stage: 'host-work', touch });
  const banks = [...cpuOf(state, label, cpu).banks];
  banks[1] = { severity: 'required', gfn: touch.gfn, isOverflown: false, saysUnmapped: false };
  const change = { stage: 'machine-check', touch, banks, inProgress: true, hasErrorIp: true } as const;
  return withCpu(state, label, cpu, change, { touches: [eventOf(label, touch, line)] });
}

interface Touching<A> {
  readonly command: string;
  readonly cpuOf: (args: A) => string;
  readonly lineOf: (args: A) => string;
  readonly touchOf: (args: A) => McTouch & { readonly how: McHow };
  readonly aimed: (row: Guard<A>) => Guard<A>;
}

/** The rows of a touch that does not simply happen. */
export function touchRows<A extends OnFrame>(touching: Touching<A>): readonly Guard<A>[] {
  const { command, aimed } = touching;
  const pageIn = (args: A, state: State): McPage => pageOf(state, args.guest, args.gfn);
  const leavesTo = (go: typeof exited) => (args: A, state: State) =>
    go(state, args.guest, touching.cpuOf(args), touching.touchOf(args), touching.lineOf(args));
  return [
    aimed({
      id: `${command}/taken`,
      group: 'page',
      only: { feature: 'virtual' },
      result: 'SIGBUS AR to the VMM, MEMORY_FAULT EHWPOISON',
      when: 'the host has taken the frame: KVM tells the VMM by a signal, or for gmem by the exit',
      source:
        'arch/x86/kvm/mmu/mmu.c: kvm_handle_error_pfn(), kvm_send_hwpoison_signal(), kvm_mmu_faultin_pfn_gmem(); virt/kvm/guest_memfd.c: __kvm_gmem_get_pfn()',
      violated: (args, state) => pageIn(args, state).isTaken,
      outcome: (args, state) => exitOf(state, args.guest, args.gfn),
      leaves: leavesTo(exited),
    }),
    aimed({
      id: `${command}/bad-line`,
      group: 'page',
      result: 'machine check',
      when: 'the line is bad, no cache hides that, and it is consumed: the hardware raises a machine check, which a host takes on the thread of the vCPU',
      source: 'Intel SDM, volume 3, 17.9.3; arch/x86/kvm/x86.h: kvm_machine_check()',
      violated: (args, state) => {
        const page = pageIn(args, state);
        return !page.isTaken && isConsumed(page, touching.lineOf(args), touching.touchOf(args).how);
      },
      outcome: () => RAISED,
      leaves: leavesTo(raised),
    }),
  ];
}
