import { choice, fd, i64 } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import { defineTransition } from '../core/transition.ts';
import { bytes, chooseFd } from './choose.ts';

const isPositioned = (op: string): boolean => op === 'pread' || op === 'pwrite';

export const fileIo = defineTransition({
  name: 'file.io',
  summary: 'Reads or writes eight bytes of the file itself, which guest memory never allows.',
  does: 'by `op`: `read(fd, buffer, 8)`, `write(fd, buffer, 8)`, `pread(fd, buffer, 8, offset)`, `pwrite(fd, buffer, 8, offset)`',
  source: 'fs/read_write.c: vfs_read(), vfs_write(); virt/kvm/guest_memfd.c: kvm_gmem_fops',
  args: { fd: fd('gmem'), op: choice('read', 'write', 'pread', 'pwrite'), offset: i64() },
  mayAlso: [],
  weight: 2,
  guards: [
    {
      id: 'file.io/negative-offset',
      errno: 'EINVAL',
      when: 'pread or pwrite is given a negative offset, even if the descriptor is bad',
      source: 'fs/read_write.c: ksys_pread64(), ksys_pwrite64()',
      violated: ({ op, offset }) => isPositioned(op) && offset < 0n,
      violate: (args, _state, random) => ({ ...args, op: pick(random, ['pread', 'pwrite']), offset: -1n }),
    },
    { descriptor: 'fd', kind: 'gmem' },
    {
      id: 'file.io/not-seekable',
      group: 'op',
      errno: 'ESPIPE',
      when: 'the operation is pread or pwrite: a guest memory file has no file position',
      source: 'fs/read_write.c: ksys_pread64(), FMODE_PREAD; virt/kvm/guest_memfd.c: __kvm_gmem_create()',
      violated: ({ op }) => isPositioned(op),
      violate: (args, _state, random) => ({ ...args, op: pick(random, ['pread', 'pwrite']) }),
    },
    {
      id: 'file.io/no-method',
      group: 'op',
      errno: 'EINVAL',
      when: 'the operation is read or write: a guest memory file has no method for it',
      violated: ({ op }) => !isPositioned(op),
      violate: (args, _state, random) => ({ ...args, op: pick(random, ['read', 'write']) }),
    },
  ],
  accepts: [],
  draw: ({ random, state }) => {
    const label = chooseFd(random, state, 'gmem');
    if (label === undefined) return undefined;
    return { fd: label, op: pick(random, ['read', 'write', 'pread', 'pwrite']), offset: bytes(random.below(3)) };
  },
});
