/** Frames that become private or shared, and pages that are given to a TD that runs. */
import { choice } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import type { State, TdFrame } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { madePrivate } from './life.ts';
import {
  filledWith,
  GFNS,
  guestLine,
  has,
  isMarked,
  isOwned,
  isTdx,
  REMOVED,
  reset,
  tdOf,
  vcpuOf,
  VCPUS,
  withFrame,
  withMachine,
  withTracked,
} from './machine.ts';
import {
  aimed,
  chooseFrame,
  chooseTd,
  chooseVcpu,
  dead,
  frameAt,
  gfn,
  IMPORT_FAILS,
  noTd,
  noVcpu,
  tdLabel,
  TDX_SOURCE,
  UNEXPECTED_REFERENCES,
  vcpu,
} from './rows.ts';

const convertDomains = { td: tdLabel, gfn, to: choice('private', 'shared') } as const;

type Convert = ArgsOf<typeof convertDomains>;

const becomesPrivate = (args: Convert, state: State): boolean => args.to === 'private' && !frameAt(args, state).private;

const becomesShared = (args: Convert, state: State): boolean => args.to === 'shared' && frameAt(args, state).private;

/** Whether the module has a page there, which is to be taken back from it. */
const takesBack = (args: Convert, state: State): boolean =>
  isTdx(state) && becomesShared(args, state) && isOwned(frameAt(args, state));

const toPrivate = (args: Convert, state: State): State => {
  const before = frameAt(args, state);
  // Of SEV the host hears nothing: the guest changes its own page table.
  const frame = has(state, 'c-bit') ? { ...before, private: true } : madePrivate(state, before);
  // What the guest and the host had in common stays in the page when the guest stops sharing it.
  if (!has(state, 'ultravisor') || tdOf(state, args.td).phase === 'created')
    return withFrame(state, args.td, args.gfn, frame);
  const lines = frame.page.lines.map(({ value }) => guestLine(value));
  return withFrame(state, args.td, args.gfn, {
    ...frame,
    page: { ...frame.page, lines },
    entry: 'mapped',
    isSwapped: false,
  });
};

const toShared = (args: Convert, state: State): State => {
  const frame = frameAt(args, state);
  const { page } = frame;
  const shared = { ...REMOVED, private: false } as const;
  // The ultravisor shares what it has imported, for which the page must be there.
  if (!has(state, 'ultravisor') || !isOwned(frame)) return withFrame(state, args.td, args.gfn, shared);
  const lines = page.lines.map((each) => ({ ...each, under: 'host' as const }));
  return withFrame(state, args.td, args.gfn, { ...shared, page: { ...page, lines }, isSwapped: false });
};

/** KVM tries once more where the module is busy. */
const takenBack = (args: Convert, state: State): State => {
  const { page, tracked } = frameAt(args, state);
  const removed = withFrame(state, args.td, args.gfn, { ...REMOVED, private: false, page: reset(page) });
  const kicked = tdOf(state, args.td).phase === 'runnable' && !tracked ? withTracked(removed, args.td) : removed;
  return withMachine(kicked, { busy: 0 });
};

const row = (each: Guard<Convert>): Guard<Convert> => aimed<Convert>({ gfn: GFNS, to: ['private', 'shared'] }, each);

export const tdConvert = defineTransition({
  name: 'td.convert',
  realm: 'td',
  summary: 'Makes a guest frame private or shared, and takes from the other world what it has of it.',
  does: 'frame `gfn` becomes `to`, by whoever has the say in the design: the hypercall of the RFC, `KVM_SET_MEMORY_ATTRIBUTES`, the page table of an SEV guest, the call of an s390 guest to the ultravisor',
  source: `virt/kvm/kvm_main.c: kvm_vm_set_mem_attributes(); ${TDX_SOURCE}: tdx_sept_remove_leaf_spte()`,
  args: convertDomains,
  mayAlso: [],
  weight: 10,
  guards: [
    noTd<Convert>('td.convert'),
    dead<Convert>('td.convert'),
    row({
      id: 'td.convert/pinned',
      only: { feature: 'explicit-maps' },
      errno: 'EAGAIN',
      when: 'the frame is to become private, and a device has its page',
      source: UNEXPECTED_REFERENCES,
      violated: (args, state) => becomesPrivate(args, state) && frameAt(args, state).isPinned,
    }),
    row({
      id: 'td.convert/marked',
      only: { feature: 'tdx' },
      unmodelled: 'what becomes of a page that the host knows to be poisoned is the machine-check system’s affair',
      when: 'the page has had a machine check',
      violated: (args, state) => becomesShared(args, state) && isMarked(state, frameAt(args, state)),
    }),
    row({
      id: 'td.convert/still-busy',
      only: { feature: 'tdx' },
      unmodelled:
        'a removal that fails twice is a bug of KVM or of the module, and what is left of the TD nobody has settled',
      when: 'a page is to be removed, and the module is busy when KVM tries again',
      violated: (args, state) => takesBack(args, state) && state.td.busy > 1,
    }),
    row({
      id: 'td.convert/ciphertext-changed',
      only: { feature: 'ultravisor' },
      result: 'SIGSEGV',
      outcome: () => ({ kind: 'signal', signal: 'SIGSEGV' }),
      when: 'the page is to be shared, and the host changed it while it was exported: it cannot be imported any more',
      source: IMPORT_FAILS,
      violated: (args, state) => becomesShared(args, state) && frameAt(args, state).exported === 'changed',
      leaves: (args, state) => withFrame(state, args.td, args.gfn, { isSwapped: false }),
    }),
  ],
  accepts: [
    {
      id: 'td.convert/unchanged',
      when: 'the frame is so already',
      applies: (args, state) => frameAt(args, state).private === (args.to === 'private'),
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'td.convert/taken-back',
      only: { feature: 'tdx' },
      when: 'the frame becomes shared, and its page is taken back: blocked, tracked with all vCPUs out of the guest (if the TD runs), removed, written back, and reset',
      applies: takesBack,
      accept: (args, state) => ({ state: takenBack(args, state) }),
    },
    {
      id: 'td.convert/shared',
      when: 'the frame becomes shared',
      applies: becomesShared,
      accept: (args, state) => ({ state: toShared(args, state) }),
    },
    {
      id: 'td.convert/private',
      when: 'the frame becomes private: what user space has of it by its page tables goes, where a design has it so',
      accept: (args, state) => ({ state: toPrivate(args, state) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseTd(random, state, ({ phase }) => phase !== 'created');
    if (label === undefined) return undefined;
    const to = pick(random, ['private', 'shared']);
    const wanted = (frame: TdFrame): boolean => frame.private === (to === 'shared');
    return { td: label, gfn: chooseFrame(random, state, label, wanted), to };
  },
});

const augmentDomains = { td: tdLabel, vcpu, gfn } as const;

type Augment = ArgsOf<typeof augmentDomains>;

/** The page is the TD's, which has not accepted it. */
export const augmented = (state: State, td: string, gfnName: string, { page }: TdFrame): State =>
  withFrame(state, td, gfnName, { entry: 'pending', tracked: false, page: filledWith(page, guestLine(0n)) });

export const tdAugment = defineTransition({
  name: 'td.augment',
  realm: 'td',
  summary: 'Gives a TD that runs a page, which the guest has to accept.',
  does: '`KVM_PRE_FAULT_MEMORY` on `vcpu` of the private address of frame `gfn`',
  source: `arch/x86/kvm/mmu/mmu.c: kvm_arch_vcpu_pre_fault_memory(); ${TDX_SOURCE}: tdx_mem_page_aug()`,
  only: { feature: 'tdx' },
  args: augmentDomains,
  mayAlso: [],
  weight: 6,
  guards: [
    noTd<Augment>('td.augment'),
    noVcpu<Augment>('td.augment'),
    { ...dead<Augment>('td.augment'), group: 'phase' },
    aimed<Augment>(
      { vcpu: VCPUS },
      {
        id: 'td.augment/not-runnable',
        group: 'phase',
        errno: 'EOPNOTSUPP',
        when: 'the TD is not finalized',
        violated: ({ td }, state) => tdOf(state, td).phase !== 'runnable',
      },
    ),
    {
      id: 'td.augment/ended',
      unmodelled: 'KVM gives no pages to a TD that cannot run any more',
      when: 'the TD had a machine check, or its vCPUs were flushed for good',
      violated: ({ td }, state) => tdOf(state, td).ended !== 'no' || tdOf(state, td).flush !== 'none',
    },
  ],
  accepts: [
    {
      id: 'td.augment/shared',
      when: 'the frame is shared: the shared page is fetched',
      source: 'arch/x86/kvm/mmu/mmu.c: kvm_arch_vcpu_pre_fault_memory()',
      applies: (args, state) => !frameAt(args, state).private,
      accept: (args, state) => ({ state: withFrame(state, args.td, args.gfn, { isSwapped: false }) }),
    },
    {
      id: 'td.augment/there',
      when: 'the frame has a page',
      applies: (args, state) => isOwned(frameAt(args, state)),
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'td.augment/augmented',
      when: 'the frame is private and has no page: it gets one, which is pending',
      accept: (args, state) => ({ state: augmented(state, args.td, args.gfn, frameAt(args, state)) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseTd(random, state, ({ phase }) => phase === 'runnable');
    if (label === undefined) return undefined;
    const td = tdOf(state, label);
    const wanted = (frame: TdFrame): boolean => frame.private && !isOwned(frame);
    return {
      td: label,
      vcpu: VCPUS.find((each) => vcpuOf(state, label, each) !== undefined) ?? chooseVcpu(random, td, true),
      gfn: chooseFrame(random, state, label, wanted),
    };
  },
});
