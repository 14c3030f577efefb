/** A key of two VMs: a mirror beside its owner, or a VM that takes over from another. */
import { sevSource } from '../core/domain.ts';
import type { Observation } from '../core/outcome.ts';
import { pickOr, type Random } from '../core/random.ts';
import { NO_FD, OTHER, type Label, type State } from '../core/state.ts';
import type { SevVm } from '../core/state-sev.ts';
import { defineTransition, type ArgsOf, type DrawContext, type Guard } from '../core/transition.ts';
import { isThere, released, vmOf, withMachine, withVm } from './key-machine.ts';
import { chooseVm, dead, noVm, SEV, vm } from './key-rows.ts';

const pairDomains = { vm, from: sevSource() } as const;
type Pair = ArgsOf<typeof pairDomains>;

interface Row {
  readonly id: string;
  readonly when: string;
  readonly source?: string;
  readonly isSo: (destination: SevVm, source: SevVm) => boolean;
}

/** A row on both VMs, with a way to break it: by other ones. */
const onBoth = ({ isSo, ...row }: Row): Guard<Pair> => {
  const violated = ({ vm: to, from }: Pair, state: State): boolean => isSo(vmOf(state, to), vmOf(state, from));
  return {
    ...row,
    errno: 'EINVAL',
    violated,
    violate: (args: Pair, state: State, random: Random) => {
      const labels = [...state.sev.vms].filter(([, { isOpen, isDead }]) => isOpen && !isDead).map(([label]) => label);
      const pairs = labels.flatMap((to) =>
        labels.filter((from) => from !== to).map((from) => ({ ...args, vm: to, from })),
      );
      return pickOr(
        random,
        pairs.filter((each) => violated(each, state)),
      );
    },
  };
};

/** No file, another file, or this VM. */
const FROM = 'from';

/** Rows of both capabilities, up to the locks. */
const sourceRows = (command: string, source: string): readonly Guard<Pair>[] => [
  noVm<Pair>(command),
  dead<Pair>(command),
  {
    id: `${command}/bad-descriptor`,
    group: FROM,
    errno: 'EBADF',
    when: '`from` names no open file',
    source,
    violated: ({ from }, state) => from !== OTHER && !isThere(state, from),
    violate: (args) => ({ ...args, from: NO_FD }),
  },
  {
    id: `${command}/not-a-vm`,
    group: FROM,
    errno: 'EBADF',
    when: '`from` is a file that is not a VM',
    source,
    violated: ({ from }) => from === OTHER,
    violate: (args) => ({ ...args, from: OTHER }),
  },
  {
    id: `${command}/same-vm`,
    group: FROM,
    errno: 'EINVAL',
    when: '`from` is the VM itself',
    source: `${SEV}: sev_lock_two_vms()`,
    violated: ({ vm: to, from }) => to === from,
    violate: (args) => ({ ...args, from: args.vm }),
  },
];

const isActive = (command: string): Guard<Pair> =>
  onBoth({
    id: `${command}/active`,
    when: 'the VM is an SEV guest already',
    isSo: (to) => to.isActive,
  });

const fromPlain = (command: string): Guard<Pair> =>
  onBoth({
    id: `${command}/from-plain`,
    when: '`from` is no SEV guest (yet, or any more)',
    isSo: (_to, from) => !from.isActive,
  });

const fromSnp = (command: string): Guard<Pair> =>
  onBoth({
    id: `${command}/from-snp`,
    when: '`from` is an SNP guest',
    isSo: (_to, from) => from.isSnp,
  });

/** One of the VMs takes part in another such command: migration_in_progress, sev_lock_two_vms(). */
const meetsAnother = (_args: Pair, observed: Observation): boolean =>
  observed.kind === 'errno' && observed.errno === 'EBUSY';

/** Draws two VMs, of which one can get what the other has. */
function drawPair(
  { random, state }: DrawContext,
  isSource: (from: SevVm) => boolean,
  fit: (to: SevVm, from: SevVm) => boolean,
): Pair | undefined {
  const from = chooseVm(random, state, (each) => each.isActive && !each.isSnp && isSource(each));
  if (from === undefined) return undefined;
  const to = chooseVm(random, state, (each) => !each.isActive && !each.isDead && fit(each, vmOf(state, from)));
  return to === undefined || to === from ? undefined : { vm: to, from };
}

const COPY = `${SEV}: sev_vm_copy_enc_context_from()`;

export const sevCopy = defineTransition({
  name: 'sev.copy',
  realm: 'sev',
  summary: 'A VM becomes a mirror of another: it uses its key, and keeps it there.',
  does: '`KVM_ENABLE_CAP` with KVM_CAP_VM_COPY_ENC_CONTEXT_FROM and the descriptor `from`',
  source: COPY,
  args: pairDomains,
  mayAlso: [],
  transient: meetsAnother,
  weight: 8,
  guards: [
    ...sourceRows('sev.copy', COPY),
    isActive('sev.copy'),
    fromPlain('sev.copy'),
    fromSnp('sev.copy'),
    onBoth({
      id: 'sev.copy/from-mirror',
      when: '`from` is a mirror itself',
      isSo: (_to, from) => from.owner !== undefined,
    }),
    onBoth({
      id: 'sev.copy/has-vcpus',
      when: 'the VM has vCPUs',
      isSo: (to) => to.vcpus.size > 0,
    }),
  ],
  accepts: [
    {
      id: 'sev.copy/copied',
      when: 'the VM is no SEV guest, and `from` owns a key; of what type they are does not matter',
      accept: ({ vm: to, from }, state) => {
        const { asid, context, isEs, hasDevice } = vmOf(state, from);
        const change = { asid, context, isEs, hasDevice, isActive: true, needsInit: false, owner: from };
        return { state: withVm(state, to, change) };
      },
    },
  ],
  draw: (context) =>
    drawPair(
      context,
      ({ owner }) => owner === undefined,
      ({ vcpus }) => vcpus.size === 0,
    ),
});

/** Every mirror of the source is one of the destination now. */
const withMirrorsOf = (state: State, from: Label, to: Label): State =>
  withMachine(state, {
    vms: new Map(
      [...state.sev.vms].map(([label, each]) => [label, each.owner === from ? { ...each, owner: to } : each] as const),
    ),
  });

/** What is left of a VM whose context was moved away. */
const emptied = (source: SevVm): Partial<SevVm> => ({
  isActive: false,
  isEs: false,
  isDead: true,
  asid: undefined,
  context: undefined,
  owner: undefined,
  regions: [],
  vcpus: new Map([...source.vcpus].map(([id, each]) => [id, { ...each, isEncrypted: false }] as const)),
});

function moved(state: State, to: Label, from: Label): State {
  const [source, target] = [vmOf(state, from), vmOf(state, to)];
  const { asid, context, isEs, owner, regions } = source;
  const vcpus = isEs
    ? new Map([...target.vcpus].map(([id, each]) => [id, { ...each, isEncrypted: true }] as const))
    : target.vcpus;
  const change = { asid, context, isEs, owner, regions, vcpus, isActive: true, hasDevice: false };
  return withMirrorsOf(withVm(withVm(state, from, emptied(source)), to, change), from, to);
}

const MOVE = `${SEV}: sev_vm_move_enc_context_from()`;

export const sevMove = defineTransition({
  name: 'sev.move',
  realm: 'sev',
  summary: 'A VM takes over from another: its key, regions and mirrors, or its being a mirror. The other is dead.',
  does: '`KVM_ENABLE_CAP` with KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM and the descriptor `from`',
  source: MOVE,
  args: pairDomains,
  mayAlso: [],
  transient: meetsAnother,
  weight: 8,
  guards: [
    ...sourceRows('sev.move', MOVE),
    onBoth({
      id: 'sev.move/another-type',
      when: 'the VMs are of different types',
      isSo: (to, from) => to.type !== from.type,
    }),
    isActive('sev.move'),
    fromPlain('sev.move'),
    fromSnp('sev.move'),
    onBoth({
      id: 'sev.move/vcpus-differ',
      when: '`from` is an SEV-ES guest, and the VMs do not have the same number of vCPUs',
      source: `${SEV}: sev_check_source_vcpus()`,
      isSo: (to, from) => from.isEs && to.vcpus.size !== from.vcpus.size,
    }),
    onBoth({
      id: 'sev.move/not-encrypted',
      when: '`from` is an SEV-ES guest with a vCPU that is not encrypted',
      source: `${SEV}: sev_check_source_vcpus()`,
      isSo: (_to, from) => from.isEs && [...from.vcpus.values()].some(({ isEncrypted }) => !isEncrypted),
    }),
  ],
  accepts: [
    {
      id: 'sev.move/mirror-moved',
      when: '`from` is a mirror: the VM is one in its place',
      source: `${SEV}: sev_migrate_from()`,
      applies: ({ from }, state) => vmOf(state, from).owner !== undefined,
      accept: ({ vm: to, from }, state) => ({ state: released(moved(state, to, from)) }),
    },
    {
      id: 'sev.move/moved',
      when: '`from` owns a key: the VM owns it in its place, and has its mirrors',
      source: `${SEV}: sev_migrate_from()`,
      accept: ({ vm: to, from }, state) => ({ state: released(moved(state, to, from)) }),
    },
  ],
  draw: (context) =>
    drawPair(
      context,
      () => true,
      (to, from) => to.type === from.type && (!from.isEs || to.vcpus.size === from.vcpus.size),
    ),
});
