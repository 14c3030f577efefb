import { fd, i64, u32 } from '../../model/core/domain.ts';
import { pick } from '../../model/core/random.ts';
import { defineTransition } from '../../model/core/transition.ts';
import { bytes, chooseFd } from '../../model/gmem/choose.ts';

/** Source: include/uapi/linux/fs.h. */
const SEEK_MAX = 4n;

export const fileSeek = defineTransition({
  name: 'file.seek',
  summary: 'Tries to move the file position; guest memory has none.',
  does: '`lseek(fd, offset, whence)`',
  source: 'fs/read_write.c: ksys_lseek()',
  args: { fd: fd('gmem'), offset: i64(), whence: u32({ boundaries: [SEEK_MAX, SEEK_MAX + 1n] }) },
  mayAlso: [],
  weight: 1,
  guards: [
    { descriptor: 'fd', kind: 'gmem' },
    {
      id: 'file.seek/unknown-whence',
      errno: 'EINVAL',
      when: '`whence` is above SEEK_MAX',
      violated: ({ whence }) => whence > SEEK_MAX,
      violate: (args, _state, random) => ({ ...args, whence: pick(random, [SEEK_MAX + 1n, 0xffff_ffffn]) }),
    },
    {
      id: 'file.seek/not-seekable',
      errno: 'ESPIPE',
      when: 'the file is guest memory, whose operations have no llseek',
      source: 'fs/read_write.c: vfs_llseek(); virt/kvm/guest_memfd.c: kvm_gmem_fops',
      violated: () => true,
      violate: (args) => args,
    },
  ],
  accepts: [],
  draw: ({ random, state }) => {
    const label = chooseFd(random, state, 'gmem');
    if (label === undefined) return undefined;
    return { fd: label, offset: bytes(random.below(4)), whence: BigInt(random.below(5)) };
  },
});
