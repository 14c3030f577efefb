/** The life of an SEV guest as its VMM sees it: created, made an SEV guest, closed. */
import { choice, fresh, u32, u64 } from '../core/domain.ts';
import { pick, pickOr } from '../core/random.ts';
import { withEntry, type State } from '../core/state.ts';
import type { SevVcpu, SevVm } from '../core/state-sev.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { allocated, released, VCPUS, vmOf, withMachine, withVm } from './key-machine.ts';
import { aimed, chooseVm, dead, encryptRows, noVm, notForSnp, onVm, SEV, vcpu, vm } from './key-rows.ts';

const MOST_VMS = 5;

export const sevVmCreate = defineTransition({
  name: 'sev.vm',
  realm: 'sev',
  summary: 'Creates a VM, of which the first four guest frames are pages of the arena.',
  does: '`KVM_CREATE_VM` with the type, and a slot over guest frames 0 to 3; the label `vm` stands for it from then on',
  source: `virt/kvm/kvm_main.c: kvm_dev_ioctl_create_vm(); ${SEV}: sev_vm_init()`,
  args: { vm: fresh('vm'), type: choice('default', 'sev', 'sev-es', 'snp') },
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 4,
  guards: [],
  accepts: [
    {
      id: 'sev.vm/created',
      when: 'always',
      accept: ({ vm: label, type }, state) => {
        const created: SevVm = {
          type,
          isOpen: true,
          vcpus: new Map(),
          isDead: false,
          needsInit: type !== 'default',
          isActive: false,
          isEs: false,
          isSnp: false,
          asid: undefined,
          context: undefined,
          hasDevice: false,
          owner: undefined,
          regions: [],
          slots: new Map(),
        };
        return { state: withMachine(state, { vms: withEntry(state.sev.vms, label, created) }) };
      },
    },
  ],
  draw: ({ random, state, fresh: label }) =>
    state.sev.vms.size >= MOST_VMS
      ? undefined
      : {
          vm: label('vm'),
          type: pick(random, ['default', 'default', 'sev', 'sev', 'sev', 'sev-es', 'sev-es', 'snp', 'snp']),
        },
});

const initDomains = {
  vm,
  how: choice('init', 'es-init', 'init2'),
  flags: u32(),
  features: u64(),
  ghcb: u32({ boundaries: [2n, 3n] }),
} as const;
type Init = ArgsOf<typeof initDomains>;

/** Source: sev_hardware_setup(): SVM_SEV_FEAT_DEBUG_SWAP; GHCB_VERSION_MAX. */
const ES_FEATURES = 1n << 5n;
const NEWEST_GHCB = 2n;

const isInit2 = ({ how }: Init): boolean => how === 'init2';

/** Whether it becomes a guest whose registers are encrypted. */
const isEs = (args: Init, { type }: SevVm): boolean => (isInit2(args) ? type !== 'sev' : args.how === 'es-init');

const INIT = `${SEV}: __sev_guest_init()`;

const initRows: readonly Guard<Init>[] = [
  aimed<Init>({
    id: 'sev.init/not-default',
    group: 'how',
    errno: 'EINVAL',
    when: 'KVM_SEV_INIT or KVM_SEV_ES_INIT is given to a VM of a type of SEV’s',
    source: `${SEV}: sev_guest_init()`,
    violated: (args, state) => !isInit2(args) && vmOf(state, args.vm).type !== 'default',
  }),
  aimed<Init>({
    id: 'sev.init/not-wanted',
    group: 'how',
    errno: 'EINVAL',
    when: 'KVM_SEV_INIT2 is given to a VM that does not wait for it',
    source: `${SEV}: sev_guest_init2()`,
    violated: (args, state) => isInit2(args) && !vmOf(state, args.vm).needsInit,
  }),
  onVm<Init>({
    id: 'sev.init/has-vcpus',
    errno: 'EINVAL',
    when: 'the VM has vCPUs',
    source: INIT,
    isSo: ({ vcpus }) => vcpus.size > 0,
  }),
  {
    id: 'sev.init/flags',
    errno: 'EINVAL',
    when: '`flags` is not zero',
    source: INIT,
    violated: (args) => isInit2(args) && args.flags !== 0n,
    violate: (args) => ({ ...args, how: 'init2', flags: 1n }),
  },
  {
    id: 'sev.init/features',
    errno: 'EINVAL',
    when: 'features of the save area are wanted that KVM has not, or any without SEV-ES',
    source: INIT,
    violated: (args, state) =>
      isInit2(args) && (args.features & ~(isEs(args, vmOf(state, args.vm)) ? ES_FEATURES : 0n)) !== 0n,
    violate: (args, _state, random) => ({ ...args, how: 'init2', features: pick(random, [1n, 1n << 9n]) }),
  },
  {
    id: 'sev.init/ghcb',
    errno: 'EINVAL',
    when: 'the version of the GHCB is one that KVM has not, or any without SEV-ES',
    source: INIT,
    violated: (args, state) =>
      isInit2(args) && (args.ghcb > NEWEST_GHCB || (args.ghcb !== 0n && !isEs(args, vmOf(state, args.vm)))),
    violate: (args, _state, random) => ({ ...args, how: 'init2', ghcb: pick(random, [1n, NEWEST_GHCB + 1n]) }),
  },
  aimed<Init>({
    id: 'sev.init/old-ghcb',
    errno: 'EINVAL',
    when: 'an SNP guest wants a GHCB of version 1',
    source: INIT,
    violated: (args, state) => isInit2(args) && args.ghcb === 1n && vmOf(state, args.vm).type === 'snp',
    violate: (args, state, random) => {
      const label = pickOr(
        random,
        [...state.sev.vms].filter(([, { isOpen, type }]) => isOpen && type === 'snp').map(([each]) => each),
      );
      return label === undefined ? undefined : { ...args, vm: label, how: 'init2', ghcb: 1n };
    },
  }),
  onVm<Init>({
    id: 'sev.init/again',
    errno: 'EINVAL',
    when: 'the VM is an SEV guest',
    source: INIT,
    isSo: ({ isActive }) => isActive,
  }),
  {
    id: 'sev.init/no-asid',
    errno: 'EBUSY',
    when: 'no ASID of the kind is free, and none can be made so by a flush, or the flush failed',
    source: `${SEV}: sev_asid_new(), sev_flush_asids()`,
    leaves: (args, state) => allocated(state, isEs(args, vmOf(state, args.vm))).state,
    violated: (args, state) => allocated(state, isEs(args, vmOf(state, args.vm))).asid === undefined,
  },
];

export const sevInit = defineTransition({
  name: 'sev.init',
  realm: 'sev',
  summary: 'Makes a VM an SEV guest, with an ASID of its own.',
  does: '`KVM_MEMORY_ENCRYPT_OP` with KVM_SEV_INIT, KVM_SEV_ES_INIT, or KVM_SEV_INIT2 and `flags`, `features` and `ghcb`',
  source: INIT,
  args: initDomains,
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 10,
  guards: [...encryptRows<Init>('sev.init'), notForSnp<Init>('sev.init'), ...initRows],
  accepts: [
    {
      id: 'sev.init/flushed',
      when: 'no ASID of the kind is free, but one was given back: caches are flushed, and all that were given back are free',
      applies: (args, state) => allocated(state, isEs(args, vmOf(state, args.vm))).state !== state,
      accept: (args, state) => initialized(args, state),
    },
    {
      id: 'sev.init/initialized',
      when: 'an ASID of the kind is free: the lowest is taken',
      accept: (args, state) => initialized(args, state),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseVm(random, state, (each) => !each.isActive && !each.isDead && each.vcpus.size === 0);
    if (label === undefined) return undefined;
    const how = vmOf(state, label).type === 'default' ? pick(random, ['init', 'es-init'] as const) : 'init2';
    return { vm: label, how, flags: 0n, features: 0n, ghcb: 0n };
  },
});

function initialized(args: Init, before: State): { readonly state: State } {
  const target = vmOf(before, args.vm);
  const { asid, state } = allocated(before, isEs(args, target));
  const isSnp = isInit2(args) && target.type === 'snp';
  const change = { isActive: true, needsInit: false, isEs: isEs(args, target), isSnp, asid };
  return { state: withVm(state, args.vm, change) };
}

const vcpuDomains = { vm, vcpu } as const;
type OnVcpu = ArgsOf<typeof vcpuDomains>;

export const sevVcpu = defineTransition({
  name: 'sev.vcpu',
  realm: 'sev',
  summary: 'Creates a vCPU.',
  does: '`KVM_CREATE_VCPU` with the id `vcpu`',
  source: 'virt/kvm/kvm_main.c: kvm_vm_ioctl_create_vcpu()',
  args: vcpuDomains,
  mayAlso: [],
  builds: true,
  weight: 6,
  guards: [
    noVm<OnVcpu>('sev.vcpu'),
    dead<OnVcpu>('sev.vcpu'),
    aimed<OnVcpu>({
      id: 'sev.vcpu/taken',
      errno: 'EEXIST',
      when: 'there is such a vCPU, also where its descriptor is closed',
      violated: (args, state) => vmOf(state, args.vm).vcpus.has(args.vcpu),
    }),
  ],
  accepts: [
    {
      id: 'sev.vcpu/created',
      when: 'the id is free',
      accept: (args, state) => {
        const created: SevVcpu = { isOpen: true, isEncrypted: false };
        return { state: withVm(state, args.vm, { vcpus: withEntry(vmOf(state, args.vm).vcpus, args.vcpu, created) }) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseVm(random, state, ({ vcpus, isDead }) => !isDead && vcpus.size < VCPUS.length);
    if (label === undefined) return undefined;
    return { vm: label, vcpu: VCPUS.find((each) => !vmOf(state, label).vcpus.has(each)) ?? '0' };
  },
});

const closeDomains = { vm, which: choice('vm', 'vcpu0', 'vcpu1') } as const;
type Close = ArgsOf<typeof closeDomains>;

const isOpenIn = (which: string, { isOpen, vcpus }: SevVm): boolean =>
  which === 'vm' ? isOpen : vcpus.get(which.slice(-1))?.isOpen === true;

export const sevClose = defineTransition({
  name: 'sev.close',
  realm: 'sev',
  summary: 'Closes a descriptor: of the VM, or of a vCPU. A VM goes with the last thing that refers to it.',
  does: '`close()` of the descriptor of the VM, or of one of its vCPUs',
  source: `virt/kvm/kvm_main.c: kvm_put_kvm(); ${SEV}: sev_vm_destroy()`,
  args: closeDomains,
  mayAlso: [],
  weight: 5,
  guards: [
    {
      id: 'sev.close/not-open',
      unmodelled: 'what is made of a descriptor that is not open is a matter of close()',
      when: 'there is no such descriptor, or it is closed',
      source: 'fs/file.c: fdget()',
      violated: ({ vm: label, which }, state) => {
        const target = state.sev.vms.get(label);
        return target === undefined || !isOpenIn(which, target);
      },
    } satisfies Guard<Close>,
  ],
  accepts: [
    {
      id: 'sev.close/closed',
      when: 'it is open',
      accept: ({ vm: label, which }, state) => {
        const { vcpus } = vmOf(state, label);
        const id = which.slice(-1);
        const change =
          which === 'vm'
            ? { isOpen: false }
            : { vcpus: withEntry(vcpus, id, { ...(vcpus.get(id) as SevVcpu), isOpen: false }) };
        return { state: released(withVm(state, label, change)) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const open = [...state.sev.vms].flatMap(([label, each]) =>
      (['vm', 'vm', 'vcpu0', 'vcpu1'] as const)
        .filter((which) => isOpenIn(which, each))
        .map((which) => ({ vm: label, which })),
    );
    return pickOr(random, open);
  },
});

export const sevFirmwareFails = defineTransition({
  name: 'sev.firmware-fails',
  realm: 'sev',
  summary: 'The firmware will refuse a command.',
  does: 'the next command of that name, or SNP’s of that kind, fails in the firmware; it waits until then',
  source: 'drivers/crypto/ccp/sev-dev.c: __sev_do_cmd_locked()',
  args: { command: choice('df-flush', 'launch-start', 'activate', 'decommission') },
  mayAlso: [],
  weight: 1,
  guards: [],
  accepts: [
    {
      id: 'sev.firmware-fails/armed',
      when: 'always',
      accept: ({ command }, state) => ({
        state: withMachine(state, { failing: new Set([...state.sev.failing, command]) }),
      }),
    },
  ],
  draw: ({ random, state }) =>
    state.sev.vms.size === 0
      ? undefined
      : { command: pick(random, ['df-flush', 'launch-start', 'activate', 'decommission']) },
});
