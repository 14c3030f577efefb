/** What the commands on TDs have in common: arguments, rows, and how they are drawn. */
import { choice, td, type ArgValue } from '../core/domain.ts';
import type { Outcome } from '../core/outcome.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import type { Label, State, Td, TdFrame } from '../core/state.ts';
import type { ArgsOf, DrawContext, Guard } from '../core/transition.ts';
import { frameOf, GFNS, type Gfn, LINES, tdOf, VCPUS, vcpuOf } from './machine.ts';

/** KVM's part of TDX. */
export const TDX_SOURCE = 'arch/x86/kvm/vmx/tdx.c';

/** Where KVM imports a page for an s390 guest: -EINVAL of the ultravisor's refusal becomes SIGSEGV. */
export const IMPORT_FAILS =
  'arch/s390/kvm/s390/s390.c: vcpu_post_run_handle_fault(); arch/s390/kvm/s390/pv.c: kvm_s390_pv_convert_to_secure(); arch/s390/kernel/uv.c: __make_folio_secure()';

/** A page with more references than expected does not become private. No release has it. */
export const UNEXPECTED_REFERENCES = '"guest_memfd: In-place conversion support": kvm_gmem_is_safe_for_conversion()';

export const tdLabel = td();
export const gfn = choice(...GFNS);
export const line = choice(...LINES);
export const vcpu = choice(...VCPUS);
export const world = choice('private', 'shared');
export const width = choice('word', 'line');

/** Arguments of the commands that name a TD, or a frame of one, and nothing else. */
export const tdDomains = { td: tdLabel } as const;
export const frameDomains = { td: tdLabel, gfn } as const;

export type OnGfn = ArgsOf<typeof frameDomains>;

export interface OnTd {
  readonly td: Label;
}

export interface OnFrame extends OnTd {
  readonly gfn: string;
}

export interface OnVcpu extends OnTd {
  readonly vcpu: string;
}

export const frameAt = (args: OnFrame, state: State): TdFrame => frameOf(state, args.td, args.gfn);

/** The values that arguments may take in place of those that they have. */
export type Choices = Readonly<Record<string, readonly ArgValue[]>>;

/** Arguments that differ from the given ones in the TD and in what is listed, and for which the condition holds. */
export const vary =
  <A extends OnTd>(choices: Choices, holds: (args: A, state: State) => boolean) =>
  (args: A, state: State, random: Random): A | undefined => {
    let all: readonly A[] = [...state.td.tds.keys()].map((label) => ({ ...args, td: label }));
    for (const [name, values] of Object.entries(choices))
      all = all.flatMap((each) => values.map((value) => ({ ...each, [name]: value })));
    return pickOr(
      random,
      all.filter((each) => holds(each, state)),
    );
  };

/** The row with a way to break it: by the TD, and by what is listed. */
export const aimed = <A extends OnTd>(choices: Choices, row: Guard<A>): Guard<A> => ({
  ...row,
  violate: vary(choices, (args: A, state) => row.violated(args, state)),
});

/** Nobody can name a TD that is not there. Behind this row there is one. */
export const noTd = <A extends OnTd>(command: string): Guard<A> => ({
  id: `${command}/no-td`,
  unmodelled: 'a TD that is not there has no frames, and no descriptor',
  when: 'no TD was created under the label, or it was destroyed',
  source: 'virt/kvm/kvm_main.c: kvm_vm_release()',
  violated: ({ td: label }, state) => !state.td.tds.has(label),
});

export const noVcpu = <A extends OnVcpu>(command: string): Guard<A> =>
  aimed<A>(
    { vcpu: VCPUS },
    {
      id: `${command}/no-vcpu`,
      errno: 'EBADF',
      when: 'the vCPU was not created, so that there is no descriptor of it',
      source: 'fs/file.c: fdget()',
      violated: (args, state) => vcpuOf(state, args.td, args.vcpu) === undefined,
    },
  );

export const dead = <A extends OnTd>(command: string): Guard<A> =>
  aimed<A>(
    {},
    {
      id: `${command}/dead`,
      only: { feature: 'tdx' },
      errno: 'EIO',
      when: 'KVM has given the VM up: the guest touched memory that it had not accepted, or KVM found a bug of its own',
      source: 'virt/kvm/kvm_main.c: kvm_vm_ioctl(), kvm_vcpu_ioctl(); vmx/tdx.c: tdx_handle_ept_violation()',
      violated: (args, state) => tdOf(state, args.td).ended === 'dead',
    },
  );

/** Keys go back when a TD goes. What KVM would ask of it then, KVM does not ask. */
export const tornDown = <A extends OnTd>(command: string): Guard<A> =>
  aimed<A>(
    {},
    {
      id: `${command}/torn-down`,
      only: { feature: 'tdx' },
      unmodelled: 'KVM flushes the vCPUs of a TD when it is destroyed, and gives it no pages then',
      when: 'the vCPUs of the TD were flushed for good, on the way to free its key',
      source: 'vmx/tdx.c: tdx_mmu_release_hkid()',
      violated: (args, state) => tdOf(state, args.td).flush !== 'none',
    },
  );

export interface Refused<A> {
  readonly id: string;
  readonly status: string;
  readonly when: string;
  readonly source?: string;
  readonly group?: string;
  violated(args: A, state: State): boolean;
  leaves?(args: A, state: State): State;
}

/** A row that ends in a status that is no error number. */
export const refused = <A>({ status, ...row }: Refused<A>): Guard<A> => ({
  ...row,
  result: status,
  outcome: (): Outcome => ({ kind: 'status', status }),
});

/** A TD of the wanted kind; now and then any. */
export const chooseTd = (random: Random, state: State, wanted: (td: Td) => boolean = () => true): Label | undefined =>
  pickOr(
    random,
    [...state.td.tds].filter(([, each]) => wanted(each) || random.below(40) === 0).map(([label]) => label),
  );

/** A frame of the wanted kind, or any if there is none; now and then any all the same. */
export function chooseFrame(random: Random, state: State, label: Label, wanted: (frame: TdFrame) => boolean): Gfn {
  const { frames } = tdOf(state, label);
  const found = GFNS.filter((each) => frames[Number(each)] !== undefined && wanted(frameOf(state, label, each)));
  return found.length === 0 || random.below(8) === 0 ? pick(random, GFNS) : pick(random, found);
}

/** A vCPU of the wanted kind, or the first. */
export const chooseVcpu = (random: Random, td: Td, isInitialized: boolean): (typeof VCPUS)[number] =>
  pickOr(
    random,
    VCPUS.filter((each) => td.vcpus.get(each)?.isInitialized === isInitialized),
  ) ?? '0';

/** A value that tells stores apart. */
export const chooseValue = (random: Random): bigint => BigInt(1 + random.below(250));

/** Draws a TD of the wanted kind. */
export const drawTd =
  (wanted?: (td: Td) => boolean) =>
  ({ random, state }: DrawContext): OnTd | undefined => {
    const label = chooseTd(random, state, wanted);
    return label === undefined ? undefined : { td: label };
  };

/** Draws a frame of the wanted kind, in a TD that has one or that is wanted for itself. */
export const drawFrame =
  (wanted: (frame: TdFrame, td: Td) => boolean, isWanted: (td: Td) => boolean = () => false) =>
  ({ random, state }: DrawContext): OnGfn | undefined => {
    const label = chooseTd(random, state, (td) => isWanted(td) || td.frames.some((frame) => wanted(frame, td)));
    if (label === undefined) return undefined;
    return { td: label, gfn: chooseFrame(random, state, label, (frame) => wanted(frame, tdOf(state, label))) };
  };
