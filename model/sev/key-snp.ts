/** The launch of an SNP guest, as far as its key goes. */
import { u32, u64 } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import { withEntry, type State } from '../core/state.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { isFailing, passed, withMachine, withVm } from './key-machine.ts';
import { drawVm, encryptRows, onVm, SEV, vm } from './key-rows.ts';
import { LAUNCHED } from './key-launch.ts';

/** Source: SNP_POLICY_MASK_RSVD_MBO. */
const MUST_BE_SET = 1n << 17n;
const SUPPORTED = (1n << 25n) - 1n;

const startDomains = {
  vm,
  flags: u32(),
  policy: u64({ boundaries: [MUST_BE_SET, SUPPORTED, SUPPORTED + 1n] }),
} as const;
type Start = ArgsOf<typeof startDomains>;

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
  does: '`KVM_MEMORY_ENCRYPT_OP` with KVM_SEV_SNP_LAUNCH_START, `flags` and `policy`',
  source: `${SEV}: snp_launch_start()`,
  args: startDomains,
  mayAlso: [],
  weight: 4,
  guards: [
    ...encryptRows<Start>('sev.snp-start'),
    onVm<Start>({
      id: 'sev.snp-start/not-snp',
      errno: 'ENOTTY',
      when: 'the VM is no SNP guest (yet)',
      isSo: ({ isSnp }) => !isSnp,
    }),
    onVm<Start>({
      id: 'sev.snp-start/again',
      errno: 'EINVAL',
      when: 'the VM has a context',
      isSo: ({ context }) => context !== undefined,
    }),
    {
      id: 'sev.snp-start/flags',
      errno: 'EINVAL',
      when: '`flags` is not zero',
      violated: ({ flags }) => flags !== 0n,
      violate: (args) => ({ ...args, flags: 1n }),
    },
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
    return drawn && { ...drawn, flags: 0n, policy: pick(context.random, [MUST_BE_SET, MUST_BE_SET | 1n]) };
  },
});
