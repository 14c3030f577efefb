import { GMEM_FILE_MODE } from '../core/abi.ts';
import { choice, fd } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import { known } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { bytes, chooseFd } from './choose.ts';

export const fileStat = defineTransition({
  name: 'file.stat',
  summary: 'Asks for a file’s size, mode or number of blocks.',
  does: '`fstat(fd, &st)`',
  tells: '`st_size`, `st_mode` or `st_blocks`, by `field`; the mode is 0100600',
  source: 'fs/stat.c: vfs_fstat(); virt/kvm/guest_memfd.c: __kvm_gmem_create()',
  args: { fd: fd('gmem'), field: choice('size', 'mode', 'blocks') },
  mayAlso: [],
  weight: 2,
  guards: [{ descriptor: 'fd', kind: 'gmem' }],
  accepts: [
    {
      id: 'file.stat/size',
      when: 'the size is asked for: it is the one given at creation',
      applies: ({ field }) => field === 'size',
      accept: (args, state) => {
        const { inode } = known(state.files, known(state.fds, args.fd).id);
        return { state, value: bytes(known(state.inodes, inode).pages) };
      },
    },
    {
      id: 'file.stat/mode',
      when: 'the mode is asked for: a regular file, readable and writable by its owner',
      applies: ({ field }) => field === 'mode',
      accept: (_args, state) => ({ state, value: GMEM_FILE_MODE }),
    },
    {
      id: 'file.stat/blocks',
      when: 'the number of blocks is asked for: guest memory does not count them',
      accept: (_args, state) => ({ state, value: 0n }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseFd(random, state, 'gmem');
    return label === undefined ? undefined : { fd: label, field: pick(random, ['size', 'mode', 'blocks']) };
  },
});
