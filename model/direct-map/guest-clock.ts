import { PAGE_MASK, PAGE_SIZE, toPages, WORD_BYTES } from '../core/abi.ts';
import { fd, mapping, u64 } from '../core/domain.ts';
import { rememberLast } from '../core/memo.ts';
import { pickOr } from '../core/random.ts';
import { known, type State } from '../core/state.ts';
import { defineTransition, type Acceptance, type ArgsOf, type Guard } from '../core/transition.ts';
import { bytes, chooseFd } from '../gmem/choose.ts';
import {
  gupRefuses,
  hostMayTouch,
  isWordAligned,
  touchMapping,
  usePages,
  wordIndex,
  writeWord,
} from '../gmem/content.ts';
import { faultIn, gfnAt, guestTop, isFound, vmOfVcpu, type Found } from '../gmem/guest-fault.ts';
import { withoutSecretMemory } from '../gmem/mem-secret.ts';
import { hostPage, isHostPoisoned, type HostPage } from '../gmem/slots.ts';
import { chooseFrame } from './kvm-access.ts';
import { isSilent, reach, type Hindrance } from './reach.ts';

/** struct pvclock_vcpu_time_info. Source: arch/x86/include/asm/pvclock-abi.h. */
const TIME_BYTES = 32n;

const domains = { vcpu: fd('vcpu'), gpa: u64(), mapping: mapping(), offset: u64() } as const;

type GuestClock = ArgsOf<typeof domains>;

const fits = (address: bigint): boolean => (address & PAGE_MASK) + TIME_BYTES <= PAGE_SIZE;

/** Where KVM writes the time, or why it does not. */
const target = rememberLast(
  ({ vcpu, gpa }: GuestClock, state: State): Found | Hindrance | 'crosses-page' | 'secret' => {
    if (!fits(gpa)) return 'crosses-page';
    const found = reach(state, vmOfVcpu(state, vcpu), gfnAt(gpa), true);
    return isFound(found) && gupRefuses(known(state.inodes, found.inode)) ? 'secret' : found;
  },
);

/** Where the host looks; undefined where it must not. */
function lookedAt({ mapping: base, offset }: GuestClock, state: State): HostPage | undefined {
  const page = hostPage(state, base, toPages(offset));
  if (typeof page === 'string' || !isWordAligned(offset) || !fits(offset)) return undefined;
  const inode = known(state.inodes, page.inode);
  return page.page < inode.pages && hostMayTouch(inode) && !isHostPoisoned(state, page) ? page : undefined;
}

/** Whether KVM writes where the host does not look. */
function isElsewhere(args: GuestClock, state: State): boolean {
  const [found, looked] = [target(args, state), lookedAt(args, state)];
  if (!isFound(found) || looked === undefined) return false;
  const isSamePage = found.inode === looked.inode && found.page === looked.page;
  return !isSamePage || (args.gpa & PAGE_MASK) !== (args.offset & PAGE_MASK);
}

/** The host has touched the page, and leaves zeroes. */
function cleared(args: GuestClock, before: State): State {
  const looked = lookedAt(args, before);
  if (looked === undefined) throw new Error('specification defect: the host looks nowhere');
  const { inode, page, mapping: label, mappingPage } = looked;
  const touched = touchMapping(usePages(before, inode, page, page + 1), label, mappingPage);
  const found = target(args, before);
  let state = isFound(found) ? faultIn(touched, found, 1) : touched;
  for (let at = args.offset; at < args.offset + TIME_BYTES; at += WORD_BYTES)
    state = writeWord(state, { inode, page, word: wordIndex(at) }, 0n);
  return state;
}

const PFNCACHE = 'virt/kvm/pfncache.c: __kvm_gpc_refresh(), hva_to_pfn_retry()';

/** The MSR takes any address, and what becomes of it nobody is told. */
const notWritten = (
  hindrance: Exclude<ReturnType<typeof target>, Found>,
  when: string,
  rest: Partial<Acceptance<GuestClock>> = {},
): Acceptance<GuestClock> => ({
  id: `guest.clock/${hindrance}`,
  when: `${when}: nothing is written, and nobody is told`,
  source: PFNCACHE,
  applies: (args, state) => target(args, state) === hindrance,
  accept: (args, state) => ({ state: cleared(args, state), value: 0n }),
  ...rest,
});

const silent = (
  id: string,
  unmodelled: string,
  when: string,
  violated: Guard<GuestClock>['violated'],
): Guard<GuestClock> => ({ id: `guest.clock/${id}`, unmodelled, when, violated });

export const guestClock = defineTransition({
  name: 'guest.clock',
  summary:
    'A guest has its kvm-clock at an address: KVM writes the time there through a gfn_to_pfn_cache, and the host looks for it.',
  does: 'clears 32 bytes at `mapping + offset`, sets MSR_KVM_SYSTEM_TIME_NEW to `gpa | 1` (KVM_SET_MSRS), lets the guest run (KVM_RUN), sets the MSR to 0, looks at the version at `mapping + offset`, and clears the bytes again; does nothing of that where the vCPU has no MSRs to set',
  tells: '1 where there was a time, else 0',
  source: 'arch/x86/kvm/msrs.c: kvm_write_system_time(); arch/x86/kvm/x86.c: kvm_setup_guest_pvclock()',
  only: { without: 'direct-map' },
  args: domains,
  mayAlso: [],
  isSequence: true,
  weight: 3,
  guards: [
    { descriptor: 'vcpu', kind: 'vcpu', ioctl: true },
    silent(
      'unaligned',
      'a time is four aligned words of eight bytes',
      'the guest address is not a multiple of eight',
      ({ gpa }) => !isWordAligned(gpa),
    ),
    silent(
      'beyond-guest-physical',
      'what a guest sees past the width of its physical addresses is up to its page tables',
      'the guest address is wider than the machine’s',
      ({ gpa }, state) => gpa >= guestTop(state),
    ),
    silent(
      'not-looked-at',
      'the host looks at memory that it may touch, at four aligned words of one page',
      'it may not touch what is at `mapping + offset`, or the 32 bytes are not such',
      (args, state) => lookedAt(args, state) === undefined,
    ),
    silent(
      'unknown-memory',
      'what KVM sees there is up to the host process, or to its machine checks',
      'at the host address of the slot there is no known mapping, or a page that has had a memory failure',
      (args, state) => {
        const found = target(args, state);
        return !isFound(found) && isSilent(found);
      },
    ),
    silent(
      'elsewhere',
      'the time that it leaves behind is not known',
      'KVM writes it to another place than the one at which the host looks',
      isElsewhere,
    ),
  ],
  accepts: [
    notWritten('crosses-page', 'the 32 bytes are not in one page', {
      source: 'virt/kvm/pfncache.c: kvm_gpc_is_valid_len()',
    }),
    notWritten('no-slot', 'no slot shows the address'),
    notWritten('read-only', 'the slot is READONLY'),
    notWritten('host-page-missing', 'the host could not touch the host address of the slot either'),
    notWritten('secret', 'at the host address of the slot there is secret memory, which GUP refuses', {
      source: 'mm/gup.c: check_vma_flags(); virt/kvm/kvm_main.c: hva_to_pfn()',
      unreachable: withoutSecretMemory,
    }),
    {
      id: 'guest.clock/written',
      when: 'the host address of the slot shows the place: the time is written there, whatever the guest sees at its address',
      accept: (args, state) => ({ state: cleared(args, state), value: 1n }),
    },
  ],
  draw: ({ random, state }) => {
    const vcpu = chooseFd(random, state, 'vcpu');
    if (vcpu === undefined) return undefined;
    const gpa = bytes(chooseFrame(random, state, vmOfVcpu(state, vcpu)));
    const at = random.below(12) === 0 ? PAGE_SIZE - WORD_BYTES : 0n;
    const found = reach(state, vmOfVcpu(state, vcpu), gfnAt(gpa), true);
    const other = pickOr(
      random,
      [...state.mappings].filter(([, map]) => hostMayTouch(known(state.inodes, map.inode))).map(([label]) => label),
    );
    if (isFound(found))
      return { vcpu, gpa: gpa + at, mapping: found.mapping ?? '', offset: bytes(found.mappingPage ?? 0) };
    return other === undefined ? undefined : { vcpu, gpa: gpa + at, mapping: other, offset: 0n };
  },
});
