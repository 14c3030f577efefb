/** Registers of vCPUs: the VMM sets them, until they are encrypted. */
import { u64 } from '../core/domain.ts';
import { pickOr } from '../core/random.ts';
import type { State } from '../core/state.ts';
import type { SevVm } from '../core/state-sev.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { contextState, FIRMWARE, LAUNCHED } from './key-launch.ts';
import { vmOf, withVm } from './key-machine.ts';
import { aimed, drawVm, encryptRows, KIND, notForSnp, onVm, SEV, vcpu, vm, type OnVm } from './key-rows.ts';
import { behind, byVcpu, deadVcpu, noVcpu, openVcpus, type OnVcpu } from './key-vcpus.ts';

const setDomains = { vm, vcpu, value: u64() } as const;
type Set = ArgsOf<typeof setDomains>;

/** sev_vm_init(): by its type, whatever becomes of the VM later. A mirror may be of another type than its source. */
const hasProtectedState = (args: OnVcpu, state: State): boolean => ['sev-es', 'snp'].includes(behind(args, state).type);

const isEncrypted = (args: OnVcpu, state: State): boolean =>
  behind(args, state).vcpus.get(args.vcpu)?.isEncrypted === true;

export const sevSetRegs = defineTransition({
  name: 'sev.set-regs',
  realm: 'sev',
  summary: 'The VMM sets registers of a vCPU.',
  does: '`KVM_SET_REGS` with `value` in a register; nothing tells it afterwards',
  source: 'arch/x86/kvm/regs.c: kvm_arch_vcpu_ioctl_set_regs()',
  args: setDomains,
  mayAlso: [],
  weight: 1,
  guards: [
    noVcpu<Set>('sev.set-regs'),
    deadVcpu<Set>('sev.set-regs', KIND),
    byVcpu<Set>({
      id: 'sev.set-regs/protected',
      group: KIND,
      errno: 'EINVAL',
      when: 'the vCPU is encrypted, and the VM is of type SEV-ES or SNP',
      violated: (args, state) => hasProtectedState(args, state) && isEncrypted(args, state),
    }),
  ],
  accepts: [
    {
      id: 'sev.set-regs/without-effect',
      when: 'the vCPU is encrypted, and the VM is an SEV-ES guest by KVM_SEV_ES_INIT, or as a mirror of one: KVM takes them, and nobody uses them',
      source: 'arch/x86/kvm/svm/sev.c: sev_vm_init()',
      applies: isEncrypted,
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'sev.set-regs/set',
      when: 'the vCPU is not encrypted',
      accept: (_args, state) => ({ state }),
    },
  ],
  draw: ({ random, state }) => {
    const chosen = pickOr(random, openVcpus(state));
    return chosen && { ...chosen, value: BigInt(1 + random.below(250)) };
  },
});

/** What is made of a VM whose vCPUs are encrypted. */
export const withEncrypted = (state: State, { vm: label }: OnVm): State => {
  const vcpus = [...vmOf(state, label).vcpus].map(([id, each]) => [id, { ...each, isEncrypted: true }] as const);
  return withVm(state, label, { vcpus: new Map(vcpus) });
};

/** vCPUs come in the order in which they were created, and those that are encrypted come first. */
export const isFirstEncrypted = ({ vm: label }: OnVm, state: State): boolean =>
  [...vmOf(state, label).vcpus.values()][0]?.isEncrypted === true;

const isToDo = ({ vcpus }: SevVm): boolean => vcpus.size > 0;

export const sevLaunchUpdateVmsa = defineTransition({
  name: 'sev.launch-update-vmsa',
  realm: 'sev',
  summary: 'Encrypts the save areas of all vCPUs, each once.',
  does: '`KVM_MEMORY_ENCRYPT_OP` with KVM_SEV_LAUNCH_UPDATE_VMSA',
  source: `${SEV}: sev_launch_update_vmsa(), __sev_launch_update_vmsa()`,
  args: { vm },
  mayAlso: [],
  weight: 4,
  guards: [
    ...encryptRows<OnVm>('sev.launch-update-vmsa', true),
    notForSnp<OnVm>('sev.launch-update-vmsa'),
    onVm<OnVm>({
      id: 'sev.launch-update-vmsa/not-es',
      group: KIND,
      errno: 'ENOTTY',
      when: 'the VM is no SEV-ES guest',
      isSo: ({ isActive, isEs }) => !isActive || !isEs,
    }),
    aimed<OnVm>({
      id: 'sev.launch-update-vmsa/again',
      group: KIND,
      errno: 'EINVAL',
      when: 'the first vCPU is encrypted',
      source: `${SEV}: sev_es_sync_vmsa()`,
      violated: isFirstEncrypted,
    }),
    onVm<OnVm>({
      id: 'sev.launch-update-vmsa/no-device',
      errno: 'EBADF',
      when: 'there are vCPUs, and KVM has no descriptor of /dev/sev',
      source: `${SEV}: __sev_issue_cmd()`,
      isSo: (each) => isToDo(each) && !each.hasDevice,
    }),
    aimed<OnVm>({
      id: 'sev.launch-update-vmsa/state',
      errno: 'EIO',
      when: 'there are vCPUs, and the context is not in the state LUPDATE',
      source: FIRMWARE,
      violated: ({ vm: label }, state) =>
        isToDo(vmOf(state, label)) && contextState(state, vmOf(state, label)) !== LAUNCHED.UPDATE,
    }),
  ],
  accepts: [
    {
      id: 'sev.launch-update-vmsa/encrypted',
      when: 'no vCPU is encrypted',
      accept: (args, state) => ({ state: withEncrypted(state, args) }),
    },
  ],
  draw: drawVm(({ isEs, isSnp, vcpus }) => isEs && !isSnp && vcpus.size > 0),
});
