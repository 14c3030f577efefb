/** The host reads and writes guest memory, in every way that it has. */
import { choice, u64 } from '../core/domain.ts';
import type { Outcome } from '../core/outcome.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import type { HostWriteEvent, State, TdFrame } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import {
  atHostAddress,
  backing,
  cached,
  isGuests,
  lineOf,
  pageOf,
  storedByHost,
  touched,
  withCopy,
  withLine,
  type Spot,
  type Which,
} from './lines.ts';
import { GFNS, type Gfn, has, isMarked, isOwned, isTdx, LINES, restarted, withFrame, withMachine } from './machine.ts';
import {
  aimed,
  chooseFrame,
  chooseTd,
  chooseValue,
  frameAt,
  gfn,
  line,
  noTd,
  tdLabel,
  width,
  type OnFrame,
} from './rows.ts';

const READ_VIA = ['user', 'gup', 'direct', 'kcore', 'dma'] as const;
const WRITE_VIA = ['user', 'gup', 'direct', 'dma'] as const;

interface Access extends OnFrame {
  readonly line: string;
  readonly via: string;
}

/** User space, and what it lets others do for it, meets what is at the host address of the frame; the kernel what backs it. */
const isByAddress = ({ via }: Access): boolean => via === 'user' || via === 'gup' || via === 'dma';

const whichPage = (args: Access, state: State): Which =>
  isByAddress(args) ? atHostAddress(frameAt(args, state)) : backing(frameAt(args, state));

const spotOf = (args: Access, state: State): Spot => ({
  td: args.td,
  gfn: args.gfn,
  line: args.line,
  which: whichPage(args, state),
});

/** Whether the access meets a page that belongs to the TD. */
const meetsGuests = (args: Access, state: State): boolean => isGuests(frameAt(args, state), whichPage(args, state));

const lineAt = (args: Access, state: State): ReturnType<typeof lineOf> =>
  lineOf(frameAt(args, state), whichPage(args, state), args.line);

const signal = (name: 'SIGBUS' | 'SIGSEGV') => ({
  result: name,
  outcome: (): Outcome => ({ kind: 'signal', signal: name }),
});

/** The access itself exports a page of s390; nothing else does. */
const exportsPage = (args: Access, state: State): boolean =>
  has(state, 'ultravisor') && isOwned(frameAt(args, state)) && args.via !== 'dma';

const MM = 'mm/memory.c: do_swap_page(); mm/gup.c: follow_page_pte()';
const RFC = 'RFC v1 "KVM: unmap guest memory using poisoned pages", patch 7';
const THREAD = 'thread of RFC v1 "KVM: unmap guest memory using poisoned pages": David Hildenbrand';

type RowOf = <A extends Access>(row: Guard<A>) => Guard<A>;

/** Why user space, a system call for it, or a device cannot have what is at a host address. */
const hindrances = <A extends Access>(command: string, row: RowOf): readonly Guard<A>[] => [
  row<A>({
    ...signal('SIGSEGV'),
    id: `${command}/not-mapped`,
    only: { feature: 'explicit-maps' },
    when: 'the VMM has no mapping of the frame',
    source: THREAD,
    violated: (args, state) => args.via === 'user' && !frameAt(args, state).isMapped,
  }),
  row<A>({
    ...signal('SIGBUS'),
    id: `${command}/unmapped-by-conversion`,
    only: { feature: 'explicit-maps' },
    when: 'the VMM has a mapping of the frame, which is private, so that nothing is behind the mapping',
    source: 'virt/kvm/guest_memfd.c: kvm_gmem_fault_user_mapping()',
    violated: (args, state) => args.via === 'user' && frameAt(args, state).isMapped && frameAt(args, state).private,
  }),
  row<A>({
    id: `${command}/not-to-be-pinned`,
    only: { feature: 'explicit-maps' },
    errno: 'EFAULT',
    when: 'GUP finds no mapping of the frame, or nothing behind it because the frame is private',
    source: 'mm/gup.c: faultin_page()',
    violated: (args, state) => args.via === 'gup' && (!frameAt(args, state).isMapped || frameAt(args, state).private),
  }),
  row<A>({
    ...signal('SIGBUS'),
    id: `${command}/poison-entry`,
    only: { feature: 'poison-entries' },
    when: 'the frame is private: in the page table of the VMM there is a poison entry',
    source: `${RFC}; ${MM}`,
    violated: (args, state) => args.via === 'user' && frameAt(args, state).private,
  }),
  row<A>({
    id: `${command}/poison-is-not-pinned`,
    only: { feature: 'poison-entries' },
    errno: 'EFAULT',
    when: 'the frame is private: GUP does not give out a poison entry, but to KVM',
    source: `${RFC}; ${MM}`,
    violated: (args, state) => args.via === 'gup' && frameAt(args, state).private,
  }),
  row<A>({
    id: `${command}/not-in-iommu`,
    errno: 'EIO',
    when: 'no device may touch the page',
    source: 'drivers/iommu/intel/dmar.c: dmar_fault_do_one(); drivers/iommu/amd/iommu.c: amd_iommu_report_page_fault()',
    violated: (args, state) => args.via === 'dma' && !frameAt(args, state).isPinned,
  }),
  row<A>({
    id: `${command}/secure-to-devices`,
    only: { feature: 'ultravisor' },
    errno: 'EIO',
    when: 'the page is the guest’s: no device reaches it, and none makes the ultravisor export it',
    source: 'Documentation/virt/kvm/s390/s390-pv.rst, on I/O of protected guests',
    violated: (args, state) => args.via === 'dma' && frameAt(args, state).isPinned && isOwned(frameAt(args, state)),
  }),
];

const readDomains = { td: tdLabel, gfn, line, via: choice(...READ_VIA) } as const;

type Read = ArgsOf<typeof readDomains>;

const readRow: RowOf = (row) => ({ ...aimed({ gfn: GFNS, line: LINES, via: READ_VIA }, row), group: 'access' });

/** /proc/kcore passes over pages that are marked as poisoned, and tells zeros for them. */
const isPassedOver = (args: Access, state: State): boolean => {
  const frame = frameAt(args, state);
  if (args.via !== 'kcore' || whichPage(args, state) !== 'page') return false;
  return isMarked(state, frame) || (has(state, 'poison-entries') && frame.private);
};

/** Poison is consumed by the kernel's own load. A device only tells that it failed. */
const consumes = (args: Read, state: State): boolean =>
  isTdx(state) &&
  !isByAddress(args) &&
  !isPassedOver(args, state) &&
  meetsGuests(args, state) &&
  lineAt(args, state).poisoned;

const ends = (_args: Read, state: State): State =>
  restarted(state, { consumptions: [{ by: 'kernel', ended: 'machine', recoverable: !state.td.coreStops }] });

const isCiphertext = (args: Read, state: State): boolean => {
  if (exportsPage(args, state)) return lineAt(args, state).under === 'guest';
  if (!has(state, 'c-bit')) return false;
  return (
    !(args.via === 'dma' && !frameAt(args, state).isPinned) && cached(lineAt(args, state), 'host').value === undefined
  );
};

/** The state after the page was read: in the cache, or out of swap, or exported. */
function afterRead(args: Read, state: State): State {
  const after = touched(state, spotOf(args, state));
  if (exportsPage(args, after))
    return frameAt(args, after).exported === 'no' ? withFrame(after, args.td, args.gfn, { exported: 'yes' }) : after;
  const found = lineAt(args, after);
  if (!has(after, 'c-bit') || found.hostCopy !== undefined) return after;
  return withLine(after, spotOf(args, after), withCopy(found, 'host', cached(found, 'host')));
}

const valueOf = (args: Read, state: State): bigint => {
  const found = lineAt(args, state);
  return has(state, 'c-bit') ? (cached(found, 'host').value ?? 0n) : found.value;
};

interface Place extends OnFrame {
  readonly gfn: Gfn;
  readonly line: (typeof LINES)[number];
}

const WANTED: readonly ((frame: TdFrame) => boolean)[] = [
  ({ isPinned, isMapped }) => isPinned || isMapped,
  isOwned,
  (frame) => isOwned(frame) && frame.page.lines.some(({ poisoned }) => poisoned),
  () => true,
];

/** Where to look: frames that a device has or user space, the guest's, lines that are not as they should be, any. */
function choosePlace(random: Random, state: State): Place | undefined {
  const label = chooseTd(random, state, ({ phase }) => phase !== 'created');
  if (label === undefined) return undefined;
  return { td: label, gfn: chooseFrame(random, state, label, pick(random, WANTED)), line: pick(random, LINES) };
}

/** What is the guest's is reached through the direct map if at all, but by a device that kept it. */
function chooseVia<const T extends string>(random: Random, frame: TdFrame, ways: readonly T[]): T | 'direct' | 'dma' {
  if (isOwned(frame) && random.below(2) === 0) return frame.isPinned ? 'dma' : 'direct';
  return pick(random, ways);
}

export const hostRead = defineTransition({
  name: 'host.read',
  realm: 'td',
  summary: 'The host loads the word of a line of guest memory.',
  does: 'loads the first word of line `line` of frame `gfn`: the VMM at the host address (`user`), process_vm_readv of it (`gup`), the kernel through the direct map (`direct`), a reader of /proc/kcore (`kcore`), or a device (`dma`)',
  tells: 'the word',
  source:
    'arch/x86/include/asm/page_64.h: __phys_addr(); mm/gup.c: get_user_pages(); fs/proc/kcore.c: read_kcore_iter()',
  args: readDomains,
  mayAlso: [],
  weight: 12,
  guards: [
    noTd<Read>('host.read'),
    ...hindrances<Read>('host.read', readRow),
    readRow<Read>({
      id: 'host.read/poison-to-devices',
      only: { feature: 'poison-entries' },
      errno: 'EIO',
      when: 'the device, which kept the page when the frame became private, meets a poisoned line',
      source: 'TDX module EAS, chapter 14',
      violated: (args, state) =>
        args.via === 'dma' && frameAt(args, state).isPinned && meetsGuests(args, state) && lineAt(args, state).poisoned,
    }),
    readRow<Read>({
      id: 'host.read/panic',
      only: { feature: 'tdx' },
      result: 'machine check, ends the machine',
      outcome: () => ({ kind: 'machine-check', ends: 'machine' }),
      leaves: ends,
      when: 'the kernel’s own load meets a poisoned line: it cannot be undone, so that the kernel panics',
      source: 'arch/x86/kernel/cpu/mce/core.c: do_machine_check(); arch/x86/kernel/cpu/mce/severity.c',
      violated: (args, state) => consumes(args, state) && !state.td.coreStops,
    }),
    readRow<Read>({
      id: 'host.read/shutdown',
      only: { feature: 'tdx' },
      result: 'shutdown',
      outcome: () => ({ kind: 'shutdown' }),
      leaves: ends,
      when: 'the kernel’s own load meets a poisoned line, and the core cannot go on',
      source: 'RFC v1 "KVM: unmap guest memory using poisoned pages", cover letter; TDX module EAS, chapter 14',
      violated: (args, state) => consumes(args, state) && state.td.coreStops,
    }),
    readRow<Read>({
      id: 'host.read/gibberish',
      only: { feature: 'c-bit' },
      result: 'ciphertext',
      outcome: () => ({ kind: 'ciphertext' }),
      leaves: afterRead,
      when: 'the line was last written under the guest’s key, and no cache has it under the host’s',
      source:
        'thread of RFC v1 "KVM: unmap guest memory using poisoned pages": Dave Hansen; AMD64 manual, volume 2, 15.34.8',
      violated: isCiphertext,
    }),
    readRow<Read>({
      id: 'host.read/exported',
      only: { feature: 'ultravisor' },
      result: 'ciphertext',
      outcome: () => ({ kind: 'ciphertext' }),
      leaves: afterRead,
      when: 'the page is the guest’s: the ultravisor encrypts it, and gives it to the host',
      source: 'arch/s390/kernel/uv.c: uv_convert_from_secure()',
      violated: isCiphertext,
    }),
  ],
  accepts: [
    {
      id: 'host.read/passed-over',
      only: { feature: 'tdx' },
      when: 'a reader of /proc/kcore comes to a page that is marked as poisoned, and tells zero for it',
      source: 'fs/proc/kcore.c: read_kcore_iter()',
      applies: isPassedOver,
      accept: (_args, state) => ({ state, value: 0n }),
    },
    {
      id: 'host.read/hidden',
      only: { feature: 'tdx' },
      when: 'the line is the TD’s: the processor gives zero for it',
      source: 'TDX module EAS, chapter 14',
      applies: (args, state) => meetsGuests(args, state) && lineAt(args, state).under === 'guest',
      accept: (_args, state) => ({ state, value: 0n }),
    },
    {
      id: 'host.read/loaded',
      when: 'the line is the host’s: nobody’s secret, or written by the host over one',
      accept: (args, state) => ({ state: afterRead(args, state), value: valueOf(args, state) }),
    },
  ],
  draw: ({ random, state }) => {
    const place = choosePlace(random, state);
    return place && { ...place, via: chooseVia(random, frameAt(place, state), READ_VIA) };
  },
});

const writeDomains = { td: tdLabel, gfn, line, via: choice(...WRITE_VIA), width, value: u64() } as const;

type Write = ArgsOf<typeof writeDomains>;

const writeRow: RowOf = (row) => ({ ...aimed({ gfn: GFNS, via: WRITE_VIA }, row), group: 'access' });

/** The store, as an event where it reaches what is the guest's. */
function reached(args: Access, state: State, via: HostWriteEvent['via'], line: string): readonly HostWriteEvent[] {
  const which = whichPage(args, state);
  return isGuests(frameAt(args, state), which)
    ? [{ frame: pageOf(frameAt(args, state), which).frame, line: Number(line), via }]
    : [];
}

interface Value {
  readonly value: bigint;
  readonly isWhole: boolean;
}

function writtenLine(args: Access, state: State, { value, isWhole }: Value): State {
  const spot = spotOf(args, state);
  return withLine(state, spot, storedByHost(state, lineAt(args, state), meetsGuests(args, state), value, isWhole));
}

const changesCiphertext = (args: Access, state: State): boolean =>
  has(state, 'ultravisor') && isOwned(frameAt(args, state));

function written(args: Write, state: State): State {
  const after = writtenLine(args, state, { value: args.value, isWhole: args.width === 'line' });
  return withMachine(after, { hostWrites: reached(args, state, args.via, args.line) });
}

/** The page is exported, and the host has changed it: the guest can never have it back. */
function spoilt(args: OnFrame, state: State, changed: readonly string[], value: bigint): State {
  const { page } = frameAt(args, state);
  const lines = page.lines.map((each, index) =>
    changed.includes(String(index)) ? { value, under: 'host' as const, poisoned: false } : each,
  );
  return withFrame(state, args.td, args.gfn, { exported: 'changed', isSwapped: false, page: { ...page, lines } });
}

export const hostWrite = defineTransition({
  name: 'host.write',
  realm: 'td',
  summary:
    'The host stores into a line of guest memory. Whether anybody pays for that, and who, is told by who reads it next.',
  does: 'stores `value` into the first word of line `line` of frame `gfn`, or into the whole line with zeros behind it: the VMM at the host address (`user`), process_vm_writev (`gup`), the kernel through the direct map (`direct`), or a device (`dma`)',
  source: 'arch/x86/include/asm/page_64.h: __phys_addr(); mm/gup.c: get_user_pages()',
  args: writeDomains,
  mayAlso: [],
  weight: 12,
  guards: [noTd<Write>('host.write'), ...hindrances<Write>('host.write', writeRow)],
  accepts: [
    {
      id: 'host.write/exported-first',
      only: { feature: 'ultravisor' },
      when: 'the page is the guest’s: it is exported, and what is changed is the ciphertext',
      source: 'arch/s390/kernel/uv.c: uv_convert_from_secure()',
      applies: changesCiphertext,
      accept: (args, state) => ({ state: spoilt(args, state, [args.line], args.value) }),
    },
    {
      id: 'host.write/poisons',
      only: { feature: 'tdx' },
      when: 'a part of a line of the TD is stored: by the partial-write erratum the line is poisoned, and nothing else happens yet',
      source: 'arch/x86/include/asm/cpufeatures.h: X86_BUG_TDX_PW_MCE',
      applies: (args, state) =>
        meetsGuests(args, state) && args.width === 'word' && lineAt(args, state).under === 'guest',
      accept: (args, state) => ({ state: written(args, state) }),
    },
    {
      id: 'host.write/replaces',
      only: { feature: 'tdx' },
      when: 'a whole line of the TD is stored, or a part of one that is foreign: the line is foreign, and poisoned no more; nothing else happens yet',
      source: 'arch/x86/virt/vmx/tdx/tdx.c: tdx_quirk_reset_paddr()',
      applies: meetsGuests,
      accept: (args, state) => ({ state: written(args, state) }),
    },
    {
      id: 'host.write/beside',
      only: { feature: 'c-bit' },
      when: 'the page is the guest’s: the store is made under the host’s key, into a copy that the guest does not see until it has left the cache',
      source: 'thread of RFC v1 "KVM: unmap guest memory using poisoned pages": Dave Hansen',
      applies: meetsGuests,
      accept: (args, state) => ({ state: written(args, state) }),
    },
    {
      id: 'host.write/stored',
      when: 'the page is nobody’s secret',
      accept: (args, state) => ({ state: written(args, state) }),
    },
  ],
  draw: ({ random, state }) => {
    const place = choosePlace(random, state);
    if (place === undefined) return undefined;
    return {
      ...place,
      via: chooseVia(random, frameAt(place, state), WRITE_VIA),
      width: pick(random, ['word', 'line']),
      value: chooseValue(random),
    };
  },
});

const zeroDomains = { td: tdLabel, gfn } as const;

type Zero = ArgsOf<typeof zeroDomains>;

function zeroed(args: Zero, state: State): State {
  if (changesCiphertext({ ...args, line: '0', via: 'direct' }, state)) return spoilt(args, state, LINES, 0n);
  let after = state;
  for (const each of LINES)
    after = writtenLine({ ...args, line: each, via: 'direct' }, after, { value: 0n, isWhole: true });
  const events = LINES.flatMap((each) => reached({ ...args, line: each, via: 'direct' }, state, 'zero', each));
  return withMachine(after, { hostWrites: events });
}

export const hostZero = defineTransition({
  name: 'host.zero',
  realm: 'td',
  summary: 'The kernel zeroes a page of guest memory, as it does with pages that it frees or gives to others.',
  does: 'the kernel stores zeros to all lines of the page that backs frame `gfn`, through the direct map, whole lines at a time',
  source: 'include/linux/highmem.h: clear_highpage()',
  args: zeroDomains,
  mayAlso: [],
  weight: 4,
  guards: [noTd<Zero>('host.zero')],
  accepts: [
    {
      id: 'host.zero/reaches',
      when: 'the page is the guest’s: what becomes of it is the same as with stores to its lines',
      applies: (args, state) => isGuests(frameAt(args, state), backing(frameAt(args, state))),
      accept: (args, state) => ({ state: zeroed(args, state) }),
    },
    {
      id: 'host.zero/zeroed',
      when: 'the page is nobody’s secret',
      accept: (args, state) => ({ state: zeroed(args, state) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = pickOr(random, [...state.td.tds.keys()]);
    return label === undefined ? undefined : { td: label, gfn: chooseFrame(random, state, label, isOwned) };
  },
});
