import _ from 'lodash';
import { PAGE_SIZE, toPages } from '../core/abi.ts';
import { fresh, u64 } from '../core/domain.ts';
import type { Machine } from '../core/machine.ts';
import { holdsIn } from '../core/profile.ts';
import { EMPTY } from '../core/ranges.ts';
import { newMapping, withEntry, type State } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { bytes } from './choose.ts';

/**
 * So many pages of secret memory every process may have, all of its mappings taken together: they count as locked. Before 7.3
 * what a process has mapped counts, and mmap() is refused; since then what the processes of a user have touched counts, and the
 * touch is refused, with SIGBUS. The limit is 8 MiB unless somebody sets it. Source: mm/secretmem.c: __secretmem_account_pages();
 * include/uapi/linux/resource.h: MLOCK_LIMIT.
 */
const FEW_PAGES = 8;

const COUNTED_WHEN_MAPPED = { before: '7.3' };

/** Why nothing can be out of reach of GUP on a machine. */
export const withoutSecretMemory = ({ secretMemory }: Machine): string | undefined =>
  secretMemory ? undefined : 'the kernel has no secret memory';

const roundUp = (length: bigint): bigint => (length + PAGE_SIZE - 1n) & ~(PAGE_SIZE - 1n);

/** Bytes of all secret memory that is mapped. Nothing but its mapping keeps it. */
const secretBytes = ({ inodes }: State): bigint =>
  bytes(_.sumBy([...inodes.values()], ({ kind, pages }) => (kind === 'secret' ? pages : 0)));

export const memSecret = defineTransition({
  name: 'mem.secret',
  summary: 'Maps new secret memory into the host process: pages that leave the direct map when they are first touched.',
  does: '`fd = memfd_secret(0)`, `ftruncate(fd, length)`, `mapping = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)`, `close(fd)`',
  source: 'mm/secretmem.c: memfd_secret(), secretmem_fault()',
  only: { without: 'direct-map' },
  args: { mapping: fresh('map'), length: u64() },
  mayAlso: [
    'ENOMEM',
    {
      errno: 'EAGAIN',
      when: 'the release is before 7.3, where mmap() counts what is mapped as locked',
      applies: (_args, { config }) => holdsIn(config.profile, COUNTED_WHEN_MAPPED),
    },
  ],
  weight: 2,
  guards: [
    {
      id: 'mem.secret/not-built',
      errno: 'ENOSYS',
      when: 'the kernel is built without SECRETMEM, runs with secretmem.enable=0, or cannot change single pages of its direct map',
      source: 'mm/secretmem.c: memfd_secret(), can_set_direct_map()',
      unreachable: ({ secretMemory }) => (secretMemory ? 'the kernel has secret memory' : undefined),
      stopsAll: withoutSecretMemory,
      violated: (_args, state) => !state.config.machine.secretMemory,
    },
    {
      id: 'mem.secret/length',
      unmodelled: 'how much memory a process may lock is up to its limits',
      when: 'the length is zero, or the process would have more than eight pages of secret memory',
      violated: ({ length }, state) => length === 0n || secretBytes(state) + length > bytes(FEW_PAGES),
    },
  ],
  accepts: [
    {
      id: 'mem.secret/mapped',
      when: 'the kernel has secret memory: no page is there before it is touched',
      accept: ({ mapping, length }, state) => {
        const pages = toPages(roundUp(length));
        const inode = {
          kind: 'secret',
          pages,
          flags: 0n,
          resident: EMPTY,
          removed: EMPTY,
          words: new Map(),
          poisoned: EMPTY,
        } as const;
        return {
          state: {
            ...state,
            inodes: withEntry(state.inodes, mapping, inode),
            mappings: withEntry(state.mappings, mapping, newMapping(mapping, undefined, 0, pages)),
          },
        };
      },
    },
  ],
  draw: ({ random, state, fresh: label }) => {
    if (state.mappings.size > 2 && random.below(6) > 0) return undefined;
    const length = bytes(1 + random.below(2));
    return secretBytes(state) + length > bytes(FEW_PAGES) ? undefined : { mapping: label('map'), length };
  },
});
