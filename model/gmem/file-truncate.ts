import { PAGE_SIZE } from '../core/abi.ts';
import { fd, i64 } from '../core/domain.ts';
import { defineTransition } from '../core/transition.ts';
import { bytes, chooseFd } from './choose.ts';

export const fileTruncate = defineTransition({
  name: 'file.truncate',
  summary: 'Tries to change the size of a file; the size of guest memory never changes.',
  does: '`ftruncate(fd, size)`',
  source: 'fs/open.c: do_ftruncate(); virt/kvm/guest_memfd.c: kvm_gmem_setattr()',
  args: { fd: fd('gmem'), size: i64() },
  mayAlso: [],
  weight: 2,
  guards: [
    {
      id: 'file.truncate/negative',
      errno: 'EINVAL',
      when: 'the size is negative, even if the descriptor is bad',
      source: 'fs/open.c: ksys_ftruncate()',
      violated: ({ size }) => size < 0n,
      violate: (args) => ({ ...args, size: -PAGE_SIZE }),
    },
    { descriptor: 'fd', kind: 'gmem' },
    {
      id: 'file.truncate/immutable',
      errno: 'EINVAL',
      when: 'the file is guest memory, even if the size would stay the same',
      source: 'virt/kvm/guest_memfd.c: kvm_gmem_setattr()',
      violated: () => true,
      violate: (args) => args,
    },
  ],
  accepts: [],
  draw: ({ random, state }) => {
    const label = chooseFd(random, state, 'gmem');
    return label === undefined ? undefined : { fd: label, size: bytes(random.below(12)) };
  },
});
