/** The launch of an SNP guest, as far as its key goes. */
import { u16, u32, u64 } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import { withEntry, type State } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { contextState, device, drawDevice, FIRMWARE, LAUNCHED, otherDevice } from './key-launch.ts';
import { isFailing, passed, vmOf, withMachine, withVm } from './key-machine.ts';
import { isFirstEncrypted, withEncrypted } from './key-registers.ts';
import { aimed, drawVm, encryptRows, onVm, SEV, vm, type OnVm } from './key-rows.ts';

/** Source: SNP_POLICY_MASK_RSVD_MBO. */
const MUST_BE_SET = 1n << 17n;
const SUPPORTED = (1n << 25n) - 1n;

const startDomains = {
  vm,
  device,
  flags: u32(),
  policy: u64({ boundaries: [MUST_BE_SET, SUPPORTED, SUPPORTED + 1n] }),
} as const;
type Start = ArgsOf<typeof startDomains>;

const notSnp = <A extends OnVm>(command: string): Guard<A> =>
  onVm<A>({
    id: `${command}/not-snp`,
    errno: 'ENOTTY',
    when: 'the VM is no SNP guest (yet)',
    isSo: ({ isSnp }) => !isSnp,
  });

const flagsSet = <A extends OnVm & { readonly flags: bigint }>(command: string): Guard<A> => ({
  id: `${command}/flags`,
  errno: 'EINVAL',
  when: '`flags` is not zero',
  violated: ({ flags }) => flags !== 0n,
  violate: (args) => ({ ...args, flags: 1n }),
});

/** The firmware refused: KVM gives the context up, but keeps it where the firmware does not let go of it. */
function givenUp(args: Start, state: State): State {
  if (!isFailing(state, 'decommission')) return state;
  return withContext(args, passed(state, 'decommission'));
}

function withContext({ vm: label }: Start, state: State): State {
  const { contexts, nextContext } = state.sev;
  const made = withMachine(state, {
    contexts: withEntry(contexts, nextContext, { state: LAUNCHED.UPDATE }),
    nextContext: nextContext + 1,
  });
  return withVm(made, label, { context: nextContext });
}

export const sevSnpStart = defineTransition({
  name: 'sev.snp-start',
  realm: 'sev',
  summary: 'The firmware makes a context for an SNP guest, and the ASID is bound to it.',
  does: '`KVM_MEMORY_ENCRYPT_OP` with KVM_SEV_SNP_LAUNCH_START, `flags` and `policy`; `sev_fd` is a descriptor of /dev/sev, or of another file',
  source: `${SEV}: snp_launch_start()`,
  args: startDomains,
  mayAlso: [],
  weight: 4,
  guards: [
    ...encryptRows<Start>('sev.snp-start'),
    notSnp<Start>('sev.snp-start'),
    onVm<Start>({
      id: 'sev.snp-start/again',
      errno: 'EINVAL',
      when: 'the VM has a context',
      isSo: ({ context }) => context !== undefined,
    }),
    flagsSet<Start>('sev.snp-start'),
    {
      id: 'sev.snp-start/policy',
      errno: 'EINVAL',
      when: 'bits of the policy are set that KVM does not know',
      violated: ({ policy }) => (policy & ~SUPPORTED) !== 0n,
      violate: (args) => ({ ...args, policy: args.policy | (SUPPORTED + 1n) }),
    },
    {
      id: 'sev.snp-start/must-be-set',
      errno: 'EINVAL',
      when: 'bit 17 of the policy is not set',
      violated: ({ policy }) => (policy & MUST_BE_SET) === 0n,
      violate: (args) => ({ ...args, policy: args.policy & ~MUST_BE_SET }),
    },
    otherDevice<Start>('sev.snp-start', 'ENOTTY', `${SEV}: snp_context_create()`),
    {
      id: 'sev.snp-start/fails',
      errno: 'EIO',
      when: 'the firmware refuses SNP_LAUNCH_START; the context is given up',
      leaves: (args, state) => givenUp(args, passed(state, 'launch-start')),
      violated: (_args, state) => isFailing(state, 'launch-start'),
    },
    {
      id: 'sev.snp-start/not-activated',
      errno: 'EIO',
      when: 'the firmware refuses SNP_ACTIVATE; the context is given up',
      source: `${SEV}: snp_bind_asid()`,
      leaves: (args, state) => givenUp(args, passed(state, 'activate')),
      violated: (_args, state) => isFailing(state, 'activate'),
    },
  ],
  accepts: [
    {
      id: 'sev.snp-start/started',
      when: 'the guest has no context yet',
      accept: (args, state) => ({ state: withVm(withContext(args, state), args.vm, { hasDevice: true }) }),
    },
  ],
  draw: (context) => {
    const drawn = drawVm(({ isSnp, context: has }) => isSnp && has === undefined)(context);
    const policy = pick(context.random, [MUST_BE_SET, MUST_BE_SET | 1n]);
    return drawn && { ...drawn, device: drawDevice(context.random), flags: 0n, policy };
  },
});

const finishDomains = { vm, flags: u16() } as const;
type Finish = ArgsOf<typeof finishDomains>;

export const sevSnpFinish = defineTransition({
  name: 'sev.snp-finish',
  realm: 'sev',
  summary: 'The save areas of all vCPUs are encrypted, and the launch of an SNP guest is over.',
  does: '`KVM_MEMORY_ENCRYPT_OP` with KVM_SEV_SNP_LAUNCH_FINISH, without an identity block',
  source: `${SEV}: snp_launch_finish(), snp_launch_update_vmsa()`,
  args: finishDomains,
  mayAlso: [],
  weight: 2,
  guards: [
    ...encryptRows<Finish>('sev.snp-finish'),
    notSnp<Finish>('sev.snp-finish'),
    onVm<Finish>({
      id: 'sev.snp-finish/no-context',
      errno: 'EINVAL',
      when: 'the VM has no context',
      isSo: ({ context }) => context === undefined,
    }),
    flagsSet<Finish>('sev.snp-finish'),
    {
      id: 'sev.snp-finish/half-made',
      unmodelled: 'what the firmware makes of it is its own affair',
      when: 'the firmware refused to start or to activate the context, and then to let it go',
      source: `${SEV}: snp_launch_start()`,
      violated: ({ vm: label }, state) => !vmOf(state, label).hasDevice,
    },
    aimed<Finish>({
      id: 'sev.snp-finish/again',
      errno: 'EINVAL',
      when: 'the first vCPU is encrypted',
      source: `${SEV}: sev_es_sync_vmsa()`,
      violated: isFirstEncrypted,
    }),
    aimed<Finish>({
      id: 'sev.snp-finish/state',
      errno: 'EIO',
      when: 'the launch is over already',
      source: FIRMWARE,
      violated: ({ vm: label }, state) => contextState(state, vmOf(state, label)) !== LAUNCHED.UPDATE,
    }),
  ],
  accepts: [
    {
      id: 'sev.snp-finish/finished',
      when: 'the launch is under way; there may be no vCPU',
      accept: (args, state) => {
        const { context } = vmOf(state, args.vm);
        const contexts = withEntry(state.sev.contexts, context as number, { state: LAUNCHED.RUNNING });
        return { state: withEncrypted(withMachine(state, { contexts }), args) };
      },
    },
  ],
  draw: (context) => {
    const drawn = drawVm(({ isSnp, context: has }) => isSnp && has !== undefined)(context);
    return drawn && { ...drawn, flags: 0n };
  },
});
