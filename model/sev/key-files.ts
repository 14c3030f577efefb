/** Guest memory in files: several files, of several VMs, on one inode. */
import { choice, fresh, sevFile } from '../core/domain.ts';
import { pick, pickOr } from '../core/random.ts';
import { known, withEntry, withoutEntry, type Label, type State } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { released, vmOf, withMachine, withVm } from './key-machine.ts';
import { aimed, chooseVm, dead, noVm, onVm, vm } from './key-rows.ts';

const RFC = 'RFC v2 "New KVM ioctl to link a gmem inode to a new gmem file", May 2025';
const GMEM = 'virt/kvm/guest_memfd.c';

const noFile = <A>(command: string, fileOf: (args: A) => Label): Guard<A> => ({
  id: `${command}/no-file`,
  unmodelled: 'what is made of a descriptor that is not open is a matter of all system calls',
  when: 'no file was made under the label, or it is closed',
  source: 'fs/file.c: fdget()',
  violated: (args, state) => !state.sev.files.has(fileOf(args)),
});

const MOST_FILES = 4;
const isFull = ({ sev }: State): boolean => sev.files.size >= MOST_FILES;

const fileDomains = { file: fresh('file'), vm } as const;
type File = ArgsOf<typeof fileDomains>;

export const sevFileCreate = defineTransition({
  name: 'sev.file',
  realm: 'sev',
  summary: 'Makes a file of guest memory, of one page.',
  does: '`KVM_CREATE_GUEST_MEMFD` of 4096 bytes, with MMAP and INIT_SHARED',
  source: `${GMEM}: __kvm_gmem_create(); include/linux/kvm_host.h: kvm_gmem_get_supported_flags()`,
  only: { feature: 'gmem-link' },
  args: fileDomains,
  mayAlso: [],
  weight: 4,
  guards: [
    noVm<File>('sev.file'),
    dead<File>('sev.file'),
    onVm<File>({
      id: 'sev.file/cannot-be-shared',
      errno: 'EINVAL',
      when: 'the VM is of SNP’s type, whose memory does not begin as shared',
      isSo: ({ type }) => type === 'snp',
    }),
  ],
  accepts: [
    {
      id: 'sev.file/created',
      when: 'memory of the VM can be shared',
      accept: ({ file, vm: label }, state) => ({
        state: withMachine(state, { files: withEntry(state.sev.files, file, { vm: label, inode: file }) }),
      }),
    },
  ],
  draw: ({ random, state, fresh: label }) => {
    const target = chooseVm(random, state, ({ isDead, type }) => !isDead && type !== 'snp');
    return target === undefined || isFull(state) ? undefined : { file: label('file'), vm: target };
  },
});

const linkDomains = { file: fresh('file'), vm, from: sevFile() } as const;
type Link = ArgsOf<typeof linkDomains>;

export const sevLink = defineTransition({
  name: 'sev.link',
  realm: 'sev',
  summary: 'Makes a file of the same memory for another VM.',
  does: '`KVM_LINK_GUEST_MEMFD` of the file `from`, without flags',
  source: RFC,
  only: { feature: 'gmem-link' },
  args: linkDomains,
  mayAlso: [],
  weight: 4,
  guards: [
    noVm<Link>('sev.link'),
    noFile<Link>('sev.link', ({ from }) => from),
    dead<Link>('sev.link'),
    {
      id: 'sev.link/same-vm',
      errno: 'EINVAL',
      when: 'the file belongs to this VM',
      violated: ({ vm: label, from }, state) => known(state.sev.files, from).vm === label,
      violate: (args, state) => ({ ...args, vm: known(state.sev.files, args.from).vm }),
    },
  ],
  accepts: [
    {
      id: 'sev.link/linked',
      when: 'the file belongs to another VM; whether they have a key in common does not matter',
      accept: ({ file, vm: label, from }, state) => {
        const { inode } = known(state.sev.files, from);
        return { state: withMachine(state, { files: withEntry(state.sev.files, file, { vm: label, inode }) }) };
      },
    },
  ],
  draw: ({ random, state, fresh: label }) => {
    const from = pickOr(random, [...state.sev.files.keys()]);
    if (from === undefined || isFull(state)) return undefined;
    const target = chooseVm(random, state, ({ isDead }) => !isDead);
    return target === undefined || known(state.sev.files, from).vm === target
      ? undefined
      : { file: label('file'), vm: target, from };
  },
});

const bindDomains = { vm, file: sevFile(), gfn: choice('4', '5') } as const;
type Bind = ArgsOf<typeof bindDomains>;

const SET = 'virt/kvm/kvm_main.c: kvm_set_memory_region()';

/** What a slot of a VM is on was made for that VM. */
const OWNER = 'owner';

export const sevBind = defineTransition({
  name: 'sev.bind',
  realm: 'sev',
  summary: 'Backs a guest frame with the page of a file.',
  does: '`KVM_SET_USER_MEMORY_REGION2` with KVM_MEM_GUEST_MEMFD: slot `gfn` of one page at that frame, on page 0 of the file',
  source: `${SET}; ${GMEM}: kvm_gmem_prepare_memory_region()`,
  only: { feature: 'gmem-link' },
  args: bindDomains,
  mayAlso: [],
  weight: 5,
  guards: [
    noVm<Bind>('sev.bind'),
    noFile<Bind>('sev.bind', ({ file }) => file),
    dead<Bind>('sev.bind'),
    aimed<Bind>({
      id: 'sev.bind/taken',
      errno: 'EINVAL',
      when: 'there is such a slot, and slots of guest memory do not change',
      violated: ({ vm: label, gfn }, state) => vmOf(state, label).slots.has(gfn),
    }),
    {
      id: 'sev.bind/file-of-another-vm',
      group: OWNER,
      errno: 'EINVAL',
      when: 'the file was made for another VM',
      violated: ({ vm: label, file }, state) => known(state.sev.files, file).vm !== label,
      violate: (args, state, random) =>
        pickOr(
          random,
          [...state.sev.files].filter(([, each]) => each.vm !== args.vm).map(([file]) => ({ ...args, file })),
        ),
    },
    {
      id: 'sev.bind/bound',
      group: OWNER,
      errno: 'EEXIST',
      when: 'the page is bound to the other slot through this file',
      violated: ({ vm: label, file }, state) => [...vmOf(state, label).slots.values()].includes(file),
      violate: (args, state) => {
        const [bound] = [...vmOf(state, args.vm).slots].filter(([, file]) => file !== undefined);
        return bound?.[1] === undefined ? undefined : { ...args, file: bound[1], gfn: bound[0] === '4' ? '5' : '4' };
      },
    },
  ],
  accepts: [
    {
      id: 'sev.bind/bound-now',
      when: 'slot and page are free',
      accept: ({ vm: label, file, gfn }, state) => ({
        state: withVm(state, label, { slots: withEntry(vmOf(state, label).slots, gfn, file) }),
      }),
    },
  ],
  draw: ({ random, state }) => {
    const file = pickOr(random, [...state.sev.files.keys()]);
    return file === undefined
      ? undefined
      : { vm: known(state.sev.files, file).vm, file, gfn: pick(random, ['4', '4', '5']) };
  },
});

export const sevCloseFile = defineTransition({
  name: 'sev.close-file',
  realm: 'sev',
  summary: 'Closes a file. Its slots stay, with nothing behind them; its VM may go with it.',
  does: '`close()` of the only descriptor of the file',
  source: `${GMEM}: kvm_gmem_release()`,
  only: { feature: 'gmem-link' },
  args: { file: sevFile() },
  mayAlso: [],
  weight: 3,
  guards: [noFile<{ readonly file: Label }>('sev.close-file', ({ file }) => file)],
  accepts: [
    {
      id: 'sev.close-file/closed',
      when: 'it is open',
      accept: ({ file }, state) => {
        const { vm: label } = known(state.sev.files, file);
        const slots = [...vmOf(state, label).slots].map(
          ([gfn, each]) => [gfn, each === file ? undefined : each] as const,
        );
        const closed = withMachine(state, { files: withoutEntry(state.sev.files, file) });
        return { state: released(withVm(closed, label, { slots: new Map(slots) })) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const file = pickOr(random, [...state.sev.files.keys()]);
    return file === undefined ? undefined : { file };
  },
});
