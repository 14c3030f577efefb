import { fd } from '../core/domain.ts';
import { rememberLast } from '../core/memo.ts';
import { pickOr } from '../core/random.ts';
import { NO_FD, known, withoutEntry, type FdKind, type Label, type State } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';
import { dropDescriptor } from './lifecycle.ts';

const close = rememberLast(({ fd: label }: { readonly fd: Label }, state: State): State =>
  dropDescriptor({ ...state, fds: withoutEntry(state.fds, label) }, known(state.fds, label)),
);

export const fdClose = defineTransition({
  name: 'fd.close',
  summary: 'Closes a descriptor; what only it kept alive goes with it.',
  does: '`close(fd)`',
  source: 'fs/open.c: close(); virt/kvm/guest_memfd.c: kvm_gmem_release(); virt/kvm/kvm_main.c: kvm_vm_release()',
  args: { fd: fd('any') },
  mayAlso: [],
  weight: 5,
  guards: [
    {
      id: 'fd.close/bad-descriptor',
      errno: 'EBADF',
      when: '`fd` names no open file',
      violated: (args, state) => !state.fds.has(args.fd),
      violate: () => ({ fd: NO_FD }),
    },
  ],
  accepts: [
    {
      id: 'fd.close/file-released',
      when: 'it was the last reference to a guest_memfd file',
      applies: (args, state) => close(args, state).files.size < state.files.size,
      accept: (args, state) => ({ state: close(args, state) }),
    },
    {
      id: 'fd.close/vm-destroyed',
      when: 'nothing else kept the VM',
      applies: (args, state) => close(args, state).vms.size < state.vms.size,
      accept: (args, state) => ({ state: close(args, state) }),
    },
    {
      id: 'fd.close/still-held',
      when: 'something else keeps what it referred to',
      accept: (args, state) => ({ state: close(args, state) }),
    },
  ],
  draw: ({ random, state }) => {
    // What happens to slots when their file goes is the interesting part.
    const kinds: readonly FdKind[] = random.below(2) === 0 ? ['gmem'] : ['gmem', 'vm', 'vcpu'];
    const named = pickOr(
      random,
      [...state.fds].filter(([, file]) => kinds.includes(file.kind)),
    );
    return named && { fd: named[0] };
  },
});
