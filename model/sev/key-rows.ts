/** What the commands of SEV guests have in common: arguments, rows, and how they are drawn. */
import { PAGE_SHIFT, PAGE_SIZE, U64_MAX } from '../core/abi.ts';
import { address, choice, sevVm } from '../core/domain.ts';
import { pickOr, type Random } from '../core/random.ts';
import { ARENA, ARENA_PAGES, GUARD_PAGES, type Address, type Label, type State } from '../core/state.ts';
import type { SevVm } from '../core/state-sev.ts';
import type { DrawContext, Guard } from '../core/transition.ts';
import { isThere, VCPUS, vmOf } from './key-machine.ts';

export const SEV = 'arch/x86/kvm/svm/sev.c';

export const vm = sevVm();
export const vcpu = choice(...VCPUS);
export const addr = address();

export interface OnVm {
  readonly vm: Label;
}

/** VMs whose descriptor is open. */
const openVms = ({ sev }: State): readonly (readonly [Label, SevVm])[] =>
  [...sev.vms].filter(([, { isOpen }]) => isOpen);

/** The row with a way to break it: by another VM. */
export const aimed = <A extends OnVm>(row: Guard<A>): Guard<A> => ({
  ...row,
  violate: (args, state, random) =>
    pickOr(
      random,
      openVms(state)
        .map(([label]) => ({ ...args, vm: label }))
        .filter((each) => row.violated(each, state)),
    ),
});

/** Nobody can name a VM without a descriptor. Behind this row there is one. */
export const noVm = <A extends OnVm>(command: string): Guard<A> => ({
  id: `${command}/no-vm`,
  unmodelled: 'what is made of a descriptor that is not open is a matter of all ioctls',
  when: 'no VM was created under the label, or its descriptor is closed',
  source: 'fs/file.c: fdget()',
  violated: ({ vm: label }, state) => !isThere(state, label),
});

export const dead = <A extends OnVm>(command: string, group?: string): Guard<A> =>
  aimed<A>({
    id: `${command}/dead`,
    ...(group !== undefined && { group }),
    errno: 'EIO',
    when: 'the context of the VM was moved to another',
    source: `virt/kvm/kvm_main.c: kvm_vm_ioctl(); ${SEV}: sev_vm_move_enc_context_from()`,
    violated: ({ vm: label }, state) => vmOf(state, label).isDead,
  });

/** A row on the VM alone. */
export const onVm = <A extends OnVm>(row: {
  readonly id: string;
  readonly errno: 'EINVAL' | 'ENOTTY' | 'EPERM' | 'EBADF';
  readonly when: string;
  readonly source?: string;
  readonly group?: string;
  readonly isSo: (vm: SevVm) => boolean;
}): Guard<A> => {
  const { isSo, ...rest } = row;
  return aimed<A>({ ...rest, violated: ({ vm: label }, state) => isSo(vmOf(state, label)) });
};

/** A VM that is dead is no mirror and no SNP guest; a mirror is an SEV guest, but no SNP guest; only SEV-ES guests have encrypted vCPUs. */
export const KIND = 'kind';

export const ENC_IOCTL = `${SEV}: sev_mem_enc_ioctl()`;

/** What KVM asks of every command of KVM_MEMORY_ENCRYPT_OP, before it looks at which it is. */
export const encryptRows = <A extends OnVm>(command: string, isOfMirrors = false): readonly Guard<A>[] => [
  noVm<A>(command),
  dead<A>(command, KIND),
  ...(isOfMirrors
    ? []
    : [
        onVm<A>({
          id: `${command}/mirror`,
          group: KIND,
          errno: 'EINVAL',
          when: 'the VM is a mirror',
          source: ENC_IOCTL,
          isSo: ({ owner }) => owner !== undefined,
        }),
      ]),
];

export const notForSnp = <A extends OnVm>(command: string): Guard<A> =>
  onVm<A>({
    id: `${command}/snp`,
    group: KIND,
    errno: 'EPERM',
    when: 'the VM is an SNP guest, which has commands of its own',
    source: ENC_IOCTL,
    isSo: ({ isSnp }) => isSnp,
  });

export const notSev = <A extends OnVm>(command: string): Guard<A> =>
  onVm<A>({
    id: `${command}/not-sev`,
    group: KIND,
    errno: 'ENOTTY',
    when: 'the VM is no SEV guest (yet)',
    isSo: ({ isActive }) => !isActive,
  });

/** A VM of the wanted kind; now and then any. */
export const chooseVm = (
  random: Random,
  state: State,
  wanted: (vm: SevVm) => boolean = () => true,
): Label | undefined =>
  pickOr(
    random,
    openVms(state)
      .filter(([, each]) => wanted(each) || random.below(30) === 0)
      .map(([label]) => label),
  );

/** Draws a VM of the wanted kind. */
export const drawVm =
  (wanted?: (vm: SevVm, state: State) => boolean) =>
  ({ random, state }: DrawContext): OnVm | undefined => {
    const label = chooseVm(random, state, (each) => wanted === undefined || wanted(each, state));
    return label === undefined ? undefined : { vm: label };
  };

/* Memory of the process. */

const INT_MAX = 0x7fff_ffffn;

export interface OnMemory extends OnVm {
  readonly addr: Address;
}

interface Pinned<A> {
  readonly bytes: (args: A) => bigint;
  /** The size has so many bits that there can be too many pages. */
  readonly isWide: boolean;
}

/** Whole pages from the one that the address lies in; counted from the start of the arena, where that is its base. */
export function pagesOf({ offset }: Address, bytes: bigint): { readonly start: bigint; readonly end: bigint } {
  return { start: offset >> PAGE_SHIFT, end: ((offset + bytes - 1n) >> PAGE_SHIFT) + 1n };
}

const pagesLocked = ({ regions }: SevVm): number => regions.reduce((sum, { start, end }) => sum + end - start, 0);

/** Rows of sev_pin_memory(). */
export function pinRows<A extends OnMemory>(command: string, { bytes, isWide }: Pinned<A>): readonly Guard<A>[] {
  const source = `${SEV}: sev_pin_memory()`;
  const count = (args: A): bigint => {
    const { start, end } = pagesOf(args.addr, bytes(args));
    return end - start;
  };
  const tooMany: Guard<A> = {
    id: `${command}/too-many-pages`,
    errno: 'EINVAL',
    when: 'there are more pages than an int counts, or, with those that are registered, than the machine has',
    source: `${source}, sev_check_pin_count()`,
    violated: (args, state) => {
      const total = BigInt(pagesLocked(vmOf(state, args.vm))) + count(args);
      return count(args) > INT_MAX || total > state.config.machine.memoryBytes >> PAGE_SHIFT;
    },
  };
  return [
    {
      id: `${command}/far`,
      unmodelled: 'what lies so far behind the arena is the host process’s affair',
      when: 'the address lies far behind the arena',
      source,
      violated: ({ addr: { base, offset } }) =>
        base !== '' && (base !== ARENA || offset >= BigInt(ARENA_PAGES + GUARD_PAGES) * PAGE_SIZE),
    },
    {
      id: `${command}/empty-or-wraps`,
      errno: 'EINVAL',
      when: 'there are no bytes, or the address behind the last is no number of 64 bits',
      source,
      violated: (args) => bytes(args) === 0n || (args.addr.base === '' && args.addr.offset + bytes(args) > U64_MAX),
      violate: (args) => ({ ...args, addr: { base: '', offset: U64_MAX } }),
    },
    ...(isWide ? [tooMany] : []),
    {
      id: `${command}/not-mapped`,
      errno: 'ENOMEM',
      when: 'nothing is mapped at one of the pages',
      source: `${SEV}: sev_pin_user_pages()`,
      violated: (args) => args.addr.base === '' || pagesOf(args.addr, bytes(args)).end > BigInt(ARENA_PAGES),
      violate: (args) => ({ ...args, addr: { base: ARENA, offset: BigInt(ARENA_PAGES) * PAGE_SIZE } }),
    },
  ];
}
