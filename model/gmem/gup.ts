/**
 * System calls that find memory of the process by get_user_pages() and reach it through the kernel's own mapping, not through
 * the one of the process.
 */
import { choice, u64 } from '../core/domain.ts';
import { fails, type Errno } from '../core/outcome.ts';
import { pick } from '../core/random.ts';
import { known, type State } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { bytes, chooseValue } from './choose.ts';
import {
  drawHostAccess,
  hostAccessArgs,
  hostAccessRows,
  inodeOfAccess,
  loadWord,
  storeWord,
  type HostAccess,
} from './mapping-access.ts';
import { withoutSecretMemory } from './mem-secret.ts';
import { gupRefuses } from './content.ts';

const readArgs = { ...hostAccessArgs, via: choice('process-vm', 'splice', 'mem') } as const;
const writeArgs = { ...hostAccessArgs, via: choice('process-vm', 'mem'), value: u64() } as const;

interface PinnedAccess extends HostAccess {
  readonly via: 'process-vm' | 'splice' | 'mem';
}

/** /proc/self/mem says how much it could copy, and where that is nothing, no more than EIO. */
const errnoOf = ({ via }: PinnedAccess): Errno => (via === 'mem' ? 'EIO' : 'EFAULT');

const REFUSED = {
  result: 'EFAULT, or EIO via mem',
  outcome: (args: PinnedAccess) => fails(errnoOf(args)),
} as const;

const rows = <A extends PinnedAccess>(command: string): readonly Guard<A>[] => [
  {
    id: `${command}/not-built`,
    errno: 'ENOSYS',
    when: 'via process-vm, and the kernel is built without CROSS_MEMORY_ATTACH',
    source: 'init/Kconfig: CROSS_MEMORY_ATTACH',
    unreachable: ({ processVm }) =>
      processVm ? 'the kernel has process_vm_readv() and process_vm_writev()' : undefined,
    violated: ({ via }, state) => via === 'process-vm' && !state.config.machine.processVm,
  },
  ...hostAccessRows<A>(command, { unmapped: REFUSED, fault: REFUSED }),
  {
    id: `${command}/secret`,
    ...REFUSED,
    when: 'the page is secret memory, which only a mapping of the process shows',
    source: 'mm/gup.c: check_vma_flags(), gup_fast_folio_allowed()',
    unreachable: withoutSecretMemory,
    violated: (args, state) => gupRefuses(inodeOfAccess(args, state)),
    violate: (args, state) => {
      const secret = [...state.mappings].find(([, { inode }]) => gupRefuses(known(state.inodes, inode)));
      return secret && { ...args, mapping: secret[0], offset: bytes(0) };
    },
  },
];

const canBePinned = (access: HostAccess, state: State): boolean => !gupRefuses(inodeOfAccess(access, state));

export const gupRead = defineTransition({
  name: 'gup.read',
  summary:
    'The host process has a system call pin a page of its own, and read a word of it through the kernel’s mapping.',
  does: 'by `via`: `process_vm_readv(getpid(), …)` from `mapping + offset`; `vmsplice` of 8 bytes there into a pipe, and `read` from that; `pread` of 8 bytes of /proc/self/mem there',
  tells: 'the word',
  source:
    'mm/gup.c: check_vma_flags(), faultin_page(); mm/process_vm_access.c: process_vm_rw_single_vec(); fs/splice.c: iter_to_pipe(); mm/memory.c: __access_remote_vm()',
  only: { without: 'direct-map' },
  args: readArgs,
  mayAlso: [],
  weight: 3,
  guards: rows<ArgsOf<typeof readArgs>>('gup.read'),
  accepts: [
    { id: 'gup.read/read', when: 'the process may touch the page: it reads what a load would', accept: loadWord },
  ],
  draw: ({ random, state }) => {
    const access = drawHostAccess(random, state);
    if (access === undefined || !canBePinned(access, state)) return undefined;
    return { ...access, via: pick(random, state.config.machine.processVm ? ANY_WAY : (['splice', 'mem'] as const)) };
  },
});

const ANY_WAY = ['process-vm', 'splice', 'mem'] as const;

export const gupWrite = defineTransition({
  name: 'gup.write',
  summary:
    'The host process has a system call pin a page of its own, and write a word of it through the kernel’s mapping.',
  does: 'by `via`: `process_vm_writev(getpid(), …)` to `mapping + offset`; `pwrite` of 8 bytes of /proc/self/mem there',
  source:
    'mm/gup.c: check_vma_flags(), faultin_page(); mm/process_vm_access.c: process_vm_rw_single_vec(); mm/memory.c: __access_remote_vm()',
  only: { without: 'direct-map' },
  args: writeArgs,
  mayAlso: [],
  weight: 3,
  guards: rows<ArgsOf<typeof writeArgs>>('gup.write'),
  accepts: [{ id: 'gup.write/written', when: 'the process may touch the page', accept: storeWord }],
  draw: ({ random, state }) => {
    const access = drawHostAccess(random, state);
    if (access === undefined || !canBePinned(access, state)) return undefined;
    const via = state.config.machine.processVm ? pick(random, ['process-vm', 'mem'] as const) : 'mem';
    return { ...access, via, value: chooseValue(random) };
  },
});
