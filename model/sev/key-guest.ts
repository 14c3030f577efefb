/** What an SEV guest does: it loads and stores words under its key. */
import { PAGE_SHIFT } from '../core/abi.ts';
import { choice, u64 } from '../core/domain.ts';
import type { Outcome } from '../core/outcome.ts';
import { pick, pickOr } from '../core/random.ts';
import { known, withEntry, type State } from '../core/state.ts';
import type { SevPage, SevVm } from '../core/state-sev.ts';
import { defineTransition, type ArgsOf, type DrawContext, type Guard } from '../core/transition.ts';
import { vmOf, withMachine } from './key-machine.ts';
import { SEV, vcpu, vm } from './key-rows.ts';
import { behind, deadVcpu, noVcpu, openVcpus } from './key-vcpus.ts';

const GFNS = ['0', '1', '2', '3', '4', '5'] as const;
/** Guest frames below this one are pages of the arena. */
const FIRST_OF_SLOTS = 4;

const gfn = choice(...GFNS);
const accessDomains = { vm, vcpu, gfn } as const;
type Access = ArgsOf<typeof accessDomains>;

const isCovered = ({ isActive, isEs, isSnp, context, vcpus }: SevVm, id: string): boolean =>
  isActive && !isSnp && context !== undefined && (!isEs || vcpus.get(id)?.isEncrypted === true);

/** What backs the frame: a page by its name, `nothing`, or a file that is `gone`. */
function backingOf({ vm: label, gfn: at }: Access, state: State): string {
  if (Number(at) < FIRST_OF_SLOTS) return at;
  const { slots } = vmOf(state, label);
  if (!slots.has(at)) return 'nothing';
  const file = slots.get(at);
  return file === undefined ? 'gone' : known(state.sev.files, file).inode;
}

const gpaOf = ({ gfn: at }: Access): bigint => BigInt(at) << PAGE_SHIFT;

const pageOf = (args: Access, state: State): SevPage | undefined => state.sev.pages.get(backingOf(args, state));

const isReadable = (args: Access, state: State): boolean => {
  const page = pageOf(args, state);
  return page?.word !== undefined && page.context === behind(args, state).context;
};

/** The row with a way to break it: by the vCPU and the frame. */
const ofAccess = <A extends Access>(row: Guard<A>): Guard<A> => ({
  ...row,
  violate: (args, state, random) =>
    pickOr(
      random,
      openVcpus(state)
        .flatMap((each) => GFNS.map((at): A => ({ ...args, ...each, gfn: at })))
        .filter((each) => row.violated(each, state)),
    ),
});

const RUN = 'arch/x86/kvm/x86.c: kvm_arch_vcpu_ioctl_run()';

function accessRows<A extends Access>(command: string, isStore: boolean): readonly Guard<A>[] {
  return [
    noVcpu<A>(command),
    deadVcpu<A>(command),
    ofAccess<A>({
      id: `${command}/needs-init`,
      errno: 'EINVAL',
      when: 'the VM is of a type that waits for KVM_SEV_INIT2; it does so also where it took a context over from another',
      source: `${RUN}; ${SEV}: sev_vcpu_needs_initialization()`,
      violated: (args, state) => behind(args, state).needsInit,
    }),
    {
      id: `${command}/not-covered`,
      unmodelled:
        'what guests do without a key, without a context, with plain registers, or as SNP guests is not part of this',
      when: 'the VM is no SEV guest, or is an SNP guest, or has no context; or the vCPU of an SEV-ES guest is not encrypted',
      source: `${SEV}: pre_sev_run()`,
      violated: (args, state) => !isCovered(behind(args, state), args.vcpu),
    },
    ofAccess<A>({
      id: `${command}/nothing-there`,
      result: 'MMIO',
      outcome: (args): Outcome => ({ kind: 'mmio', gpa: gpaOf(args), write: isStore }),
      when: 'no slot has the frame',
      source: 'arch/x86/kvm/mmu/mmu.c: kvm_handle_noslot_fault()',
      violated: (args, state) => backingOf(args, state) === 'nothing',
    }),
    ofAccess<A>({
      id: `${command}/file-gone`,
      only: { feature: 'gmem-link' },
      result: 'MEMORY_FAULT EFAULT',
      outcome: (args): Outcome => ({ kind: 'memory-fault', errno: 'EFAULT', gpa: gpaOf(args), private: false }),
      when: 'the file behind the slot was closed',
      source: 'arch/x86/kvm/mmu/mmu.c: kvm_mmu_faultin_pfn_gmem()',
      violated: (args, state) => backingOf(args, state) === 'gone',
    }),
  ];
}

function drawAccess({ random, state }: DrawContext): Access | undefined {
  const chosen = pickOr(
    random,
    openVcpus(state).filter((each) => isCovered(behind(each, state), each.vcpu)),
  );
  return chosen && { ...chosen, gfn: pick(random, ['0', '0', '1', '2', '4', '4', '5']) };
}

const storeDomains = { ...accessDomains, value: u64() } as const;
type Store = ArgsOf<typeof storeDomains>;

export const sevStore = defineTransition({
  name: 'sev.store',
  realm: 'sev',
  summary: 'The guest stores a word under its key.',
  does: '`KVM_RUN`: the guest stores `value` to the first word of the frame, with the C-bit',
  source: 'AMD64 manual, volume 2, 15.34',
  args: storeDomains,
  mayAlso: [],
  weight: 8,
  guards: accessRows<Store>('sev.store', true),
  accepts: [
    {
      id: 'sev.store/stored',
      when: 'a page is there: it is under the guest’s key from then on',
      accept: (args, state) => {
        const page: SevPage = { word: args.value, context: behind(args, state).context as number };
        return { state: withMachine(state, { pages: withEntry(state.sev.pages, backingOf(args, state), page) }) };
      },
    },
  ],
  draw: (context) => {
    const access = drawAccess(context);
    return access && { ...access, value: BigInt(1 + context.random.below(250)) };
  },
});

export const sevLoad = defineTransition({
  name: 'sev.load',
  realm: 'sev',
  summary: 'The guest loads a word under its key.',
  does: '`KVM_RUN`: the guest loads the first word of the frame, with the C-bit',
  tells: 'the word',
  source: 'AMD64 manual, volume 2, 15.34',
  args: accessDomains,
  mayAlso: [],
  weight: 8,
  guards: [
    ...accessRows<Access>('sev.load', false),
    ofAccess<Access>({
      id: 'sev.load/ciphertext',
      result: 'ciphertext',
      outcome: () => ({ kind: 'ciphertext' }),
      when: 'the page was last written under another key, by the host, or by nobody',
      violated: (args, state) => !isReadable(args, state),
    }),
  ],
  accepts: [
    {
      id: 'sev.load/loaded',
      when: 'the page was last written under the guest’s key',
      accept: (args, state) => ({ state, value: pageOf(args, state)?.word ?? 0n }),
    },
  ],
  draw: drawAccess,
});
