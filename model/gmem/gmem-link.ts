import { fd, fresh, u64 } from '../core/domain.ts';
import { known, NO_FD, openAs, withEntry, withFd, type Label, type State } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { chooseFd } from './choose.ts';

const fileOf = (state: State, fdLabel: Label): Label | undefined => openAs(state, fdLabel, 'gmem');

export const gmemLink = defineTransition({
  name: 'gmem.link',
  summary: 'Makes a file of an existing guest memory inode that belongs to another VM.',
  does: '`file = ioctl(vm, KVM_LINK_GUEST_MEMFD, { fd = from, flags })`',
  source: 'RFC PATCH v2 05/13 "KVM: selftests: Add tests for KVM_LINK_GUEST_MEMFD ioctl", 16 May 2025',
  only: { feature: 'gmem-link' },
  args: { file: fresh('file'), vm: fd('vm'), from: fd('gmem'), flags: u64() },
  mayAlso: ['ENOMEM', 'EMFILE'],
  builds: true,
  weight: 6,
  guards: [
    { descriptor: 'vm', kind: 'vm', ioctl: true },
    {
      id: 'gmem.link/unsupported-flag',
      errno: 'EINVAL',
      when: 'a flag is set',
      violated: ({ flags }) => flags !== 0n,
      violate: (args) => ({ ...args, flags: 1n }),
    },
    {
      id: 'gmem.link/not-a-gmem-file',
      errno: 'EINVAL',
      when: '`from` names no open file, or one that is not guest memory',
      violated: ({ from }, state) => fileOf(state, from) === undefined,
      violate: (args) => ({ ...args, from: NO_FD }),
    },
    {
      id: 'gmem.link/same-vm',
      errno: 'EINVAL',
      when: 'the file already belongs to this VM',
      violated: ({ vm, from }, state) => known(state.files, fileOf(state, from) ?? from).vm === openAs(state, vm, 'vm'),
      violate: (args, state) => {
        const owner = known(state.files, fileOf(state, args.from) ?? args.from).vm;
        for (const [label, open] of state.fds)
          if (open.kind === 'vm' && open.id === owner) return { ...args, vm: label };
        return undefined;
      },
    },
  ],
  accepts: [
    {
      id: 'gmem.link/linked',
      when: 'the file belongs to another VM',
      accept: ({ file, vm, from }, state) => ({
        state: {
          ...withFd(state, file, { kind: 'gmem', id: file }),
          files: withEntry(state.files, file, {
            vm: known(state.fds, vm).id,
            inode: known(state.files, fileOf(state, from) ?? from).inode,
          }),
        },
      }),
    },
  ],
  draw: ({ random, state, fresh: label }) => {
    const from = chooseFd(random, state, 'gmem');
    if (from === undefined) return undefined;
    const owner = known(state.files, known(state.fds, from).id).vm;
    const vm = [...state.fds].find(([, open]) => open.kind === 'vm' && open.id !== owner)?.[0];
    return vm === undefined ? undefined : { file: label('file'), vm, from, flags: 0n };
  },
});
