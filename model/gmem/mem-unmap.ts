import { mapping } from '../core/domain.ts';
import { pickOr } from '../core/random.ts';
import { ARENA, known, withEntry, withoutEntry } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { zapHostMapping } from './content.ts';
import { dropFile } from './lifecycle.ts';

export const memUnmap = defineTransition({
  name: 'mem.unmap',
  summary: 'Unmaps a whole mapping; its file may go with it.',
  does: '`munmap(mapping, length)` with the length that it was made with',
  source: 'mm/vma.c: do_vmi_munmap(); virt/kvm/kvm_main.c: kvm_mmu_notifier_invalidate_range_start()',
  args: { mapping: mapping() },
  mayAlso: ['ENOMEM'],
  weight: 3,
  guards: [
    {
      id: 'mem.unmap/not-mapped',
      unmodelled: 'a mapping that is gone has no address of its own',
      when: 'nothing is mapped under the label',
      violated: (args, state) => !state.mappings.has(args.mapping),
    },
  ],
  accepts: [
    {
      id: 'mem.unmap/unmapped',
      when: 'the label is mapped',
      accept: (args, state) => {
        const { file, pages, inode } = known(state.mappings, args.mapping);
        const zapped = zapHostMapping(state, args.mapping);
        const after = {
          ...zapped,
          mappings: withoutEntry(zapped.mappings, args.mapping),
          unmapped: withEntry(zapped.unmapped, args.mapping, pages),
          // The mapping is all that keeps secret memory.
          inodes: known(state.inodes, inode).kind === 'secret' ? withoutEntry(zapped.inodes, inode) : zapped.inodes,
        };
        return { state: file === undefined ? after : dropFile(after, file) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const found = pickOr(
      random,
      [...state.mappings.keys()].filter((label) => label !== ARENA || random.below(16) === 0),
    );
    return found === undefined ? undefined : { mapping: found };
  },
});
