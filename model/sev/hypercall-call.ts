/** The instruction by which a guest calls: which it is, what the processor makes of it, and what KVM. */
import { PAGE_MASK, PAGE_SHIFT, U32_MAX, U64_MAX } from '../core/abi.ts';
import { choice, u64 } from '../core/domain.ts';
import type { Outcome } from '../core/outcome.ts';
import { holdsIn } from '../core/profile.ts';
import { pick, pickOr } from '../core/random.ts';
import type { State } from '../core/state.ts';
import type { HypercallGuest, HypercallPlace } from '../core/state-hypercall.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import {
  aimed,
  chooseGuest,
  guest,
  guestOf,
  KVM_HC_MAP_GPA_RANGE,
  noGuest,
  THREAD,
  withGuest,
} from './hypercall-rows.ts';
import { MAP_GPA } from './shared-set.ts';

const EMULATE = 'arch/x86/kvm/x86.c: ____kvm_emulate_hypercall()';

/** Hypercalls that KVM knows besides, of which this says nothing. Source: include/uapi/linux/kvm_para.h. */
const OTHERS: readonly bigint[] = [1n, 5n, 9n, 10n, 11n];
const callDomains = {
  guest,
  by: choice('vmcall', 'vmmcall', 'ordinary', 'announcement'),
  cpl: choice('0', '3'),
  bits: choice('64', '32'),
  nr: u64({ boundaries: [12n, 13n, (1n << 32n) | 12n] }),
  a0: u64({ boundaries: [(1n << 52n) - 4096n] }),
  a1: u64({ boundaries: [1n << 40n, 1n << 52n] }),
  a2: u64({ boundaries: [16n, 17n, 32n] }),
} as const;
type Call = ArgsOf<typeof callDomains>;

type Instruction = 'vmcall' | 'vmmcall';

/** The one that makes the processor leave the guest; the other is an invalid opcode. */
const nativeOf = ({ cpu }: HypercallGuest): Instruction => (cpu === 'amd' ? 'vmmcall' : 'vmcall');

/** Where the call is made: an announcement has a place of its own only where it is always VMMCALL. */
function placeOf({ by }: Call, { config: { profile } }: State): HypercallPlace {
  const isOrdinary =
    holdsIn(profile, { feature: 'hypercall-patched' }) || holdsIn(profile, { feature: 'hypercall-vmmcall-default' });
  return by === 'announcement' && isOrdinary ? 'ordinary' : by;
}

function instructionAt(place: HypercallPlace, caller: HypercallGuest, { config: { profile } }: State): Instruction {
  if (caller.patched.has(place)) return nativeOf(caller);
  switch (place) {
    case 'vmcall':
    case 'vmmcall':
      return place;
    case 'announcement':
      return 'vmmcall';
    case 'ordinary': {
      const byDefault = holdsIn(profile, { feature: 'hypercall-vmmcall-default' }) ? 'vmmcall' : 'vmcall';
      return caller.hasAlternatives ? nativeOf(caller) : byDefault;
    }
  }
}

const instructionOf = (args: Call, state: State): Instruction =>
  instructionAt(placeOf(args, state), guestOf(state, args.guest), state);

const isForeign = (args: Call, state: State): boolean =>
  instructionOf(args, state) !== nativeOf(guestOf(state, args.guest));

const registers = ({ bits, nr, a0, a1, a2 }: Call) => {
  const width = bits === '64' ? U64_MAX : U32_MAX;
  return { nr: nr & width, gpa: a0 & width, pages: a1 & width, attributes: a2 & width };
};

/** What KVM puts in the place of a foreign instruction stays there. */
function patched(args: Call, state: State): State {
  if (!isForeign(args, state)) return state;
  const { patched: before } = guestOf(state, args.guest);
  return withGuest(state, args.guest, { patched: new Set([...before, placeOf(args, state)]) });
}

const excepts = (status: string) => ({ result: status, outcome: (): Outcome => ({ kind: 'status', status }) });

/** A row of the instruction, with a way to break it: by the guest, and by the instruction. */
const ofInstruction = (row: Guard<Call>): Guard<Call> => ({
  ...row,
  violate: (args, state, random) =>
    pickOr(
      random,
      [...state.hypercall.guests.keys()]
        .flatMap((label) =>
          (['vmcall', 'vmmcall', 'ordinary', 'announcement'] as const).map((by) => ({ ...args, guest: label, by })),
        )
        .filter((each) => row.violated(each, state)),
    ),
});

const foreignRows: readonly Guard<Call>[] = [
  ofInstruction({
    ...excepts('undecodable'),
    id: 'hypercall.call/undecodable',
    only: { feature: 'hypercall-patched' },
    when: 'the instruction is not the processor’s, the #UD is intercepted, and what the guest executed is encrypted',
    source: `${THREAD}: the hypervisor will not be able to decode the instruction bytes`,
    violated: (args, state) => isForeign(args, state) && guestOf(state, args.guest).isSev,
  }),
  ofInstruction({
    ...excepts('#UD'),
    id: 'hypercall.call/not-intercepted',
    only: { feature: 'ud-of-the-guest' },
    when: 'the instruction is not the processor’s, and KVM does not intercept #UD of an encrypted guest',
    source: 'arch/x86/kvm/svm/sev.c: sev_init_vmcb()',
    violated: (args, state) => isForeign(args, state) && guestOf(state, args.guest).isSev,
  }),
  ofInstruction({
    ...excepts('#GP'),
    id: 'hypercall.call/privileged',
    when: 'KVM emulates VMCALL, which is for ring 0 only, in place of the processor’s instruction',
    source: 'arch/x86/kvm/emulate.c: x86_emulate_insn(), group7_rm0',
    violated: (args, state) => isForeign(args, state) && instructionOf(args, state) === 'vmcall' && args.cpl === '3',
  }),
  ofInstruction({
    ...excepts('#UD'),
    id: 'hypercall.call/not-patched',
    when: 'the instruction is not the processor’s, and the VMM has disabled the quirk that patches it',
    source: 'arch/x86/kvm/x86.c: emulator_fix_hypercall()',
    violated: (args, state) => isForeign(args, state) && !guestOf(state, args.guest).isPatchedByKvm,
  }),
  ofInstruction({
    ...excepts('#PF'),
    id: 'hypercall.call/read-only',
    when: 'the instruction is not the processor’s, and KVM cannot write the right one there',
    source: 'arch/x86/kvm/x86.c: emulator_fix_hypercall()',
    violated: (args, state) => isForeign(args, state) && !guestOf(state, args.guest).isTextWritable,
  }),
];

const isIllFormed = (args: Call): boolean => {
  const { gpa, pages } = registers(args);
  return (gpa & PAGE_MASK) !== 0n || pages === 0n || (gpa >> PAGE_SHIFT) + pages > U64_MAX;
};

export const hypercallCall = defineTransition({
  name: 'hypercall.call',
  realm: 'hypercall',
  summary: 'The guest makes a hypercall.',
  does: '`KVM_RUN`: the guest executes the instruction in the place `by`, in ring `cpl` and with registers of `bits` bits: RAX `nr`, RBX `a0`, RCX `a1`, RDX `a2`',
  source: EMULATE,
  args: callDomains,
  mayAlso: [],
  weight: 14,
  guards: [
    noGuest<Call>('hypercall.call'),
    aimed<Call>({
      id: 'hypercall.call/pending',
      unmodelled: 'what KVM_RUN gives the guest then is what happens to be in the exit',
      when: 'an exit of the guest has not been answered',
      violated: ({ guest: label }, state) => guestOf(state, label).pending !== undefined,
    }),
    ...foreignRows,
    {
      id: 'hypercall.call/ring',
      errno: 'EPERM',
      leaves: patched,
      when: 'the guest is not in ring 0',
      violated: ({ cpl }) => cpl !== '0',
      violate: (args) => ({ ...args, cpl: '3' }),
    },
    {
      id: 'hypercall.call/another',
      unmodelled: 'hypercalls besides KVM_HC_MAP_GPA_RANGE are not part of this specification',
      when: 'KVM knows the hypercall, and it is another one',
      violated: (args) => OTHERS.includes(registers(args).nr),
      violate: (args, _state, random) => ({ ...args, nr: pick(random, OTHERS) }),
    },
    {
      id: 'hypercall.call/unknown',
      errno: 'ENOSYS',
      leaves: patched,
      when: 'there is no hypercall of that number',
      violated: (args) => registers(args).nr !== KVM_HC_MAP_GPA_RANGE,
      violate: (args, _state, random) => ({ ...args, nr: pick(random, [0n, 13n, U64_MAX]) }),
    },
    aimed<Call>({
      id: 'hypercall.call/no-exit',
      errno: 'ENOSYS',
      leaves: patched,
      when: 'the VMM has not enabled the exit',
      violated: ({ guest: label }, state) => !guestOf(state, label).exitsToVmm,
    }),
    {
      id: 'hypercall.call/ill-formed',
      errno: 'EINVAL',
      leaves: patched,
      when: 'the address is not that of a page, there are no pages, or the frame behind the last is no number of 64 bits',
      violated: isIllFormed,
      violate: (args, _state, random) =>
        pick(random, [
          { ...args, a0: args.a0 | 8n },
          { ...args, a1: 0n },
          { ...args, bits: '64', a0: args.a0 | 0x1000n, a1: U64_MAX },
        ]),
    },
    {
      id: 'hypercall.call/exits',
      result: 'HYPERCALL',
      outcome: (args) => {
        const { gpa, pages, attributes } = registers(args);
        return { kind: 'hypercall', gpa, pages, private: (attributes & MAP_GPA.ENCRYPTED) !== 0n, attributes };
      },
      leaves: (args, state) => withGuest(patched(args, state), args.guest, { pending: args.bits }),
      when: 'the VMM is asked; attributes are not looked at',
      violated: () => true,
    },
  ],
  accepts: [],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, ({ pending }) => pending === undefined);
    if (label === undefined) return undefined;
    return {
      guest: label,
      by: pick(random, callDomains.by.words ?? []) as Call['by'],
      cpl: pick(random, ['0', '0', '0', '3']),
      bits: pick(random, ['64', '64', '32']),
      nr: pick(random, [12n, 12n, 12n, (1n << 32n) | 12n]),
      a0: BigInt(random.below(4)) << PAGE_SHIFT,
      a1: pick(random, [1n, 2n, 512n, 1n << 40n]),
      a2: pick(random, [0n, 16n, 17n, 1n << 33n, U64_MAX]),
    };
  },
});

const returnDomains = {
  guest,
  sets: choice('yes', 'no'),
  ret: u64({ boundaries: [11n, 22n, 1n << 32n] }),
} as const;
type Return = ArgsOf<typeof returnDomains>;

export const hypercallReturn = defineTransition({
  name: 'hypercall.return',
  realm: 'hypercall',
  summary: 'The VMM answers, and the guest goes on.',
  does: '`KVM_RUN`; where the VMM `sets` it, with `ret` in the exit',
  tells:
    'what the guest finds in RAX: any value of the VMM’s, of 32 bits where the call was; zero, where the VMM set none',
  source: 'arch/x86/kvm/x86.c: complete_hypercall_exit()',
  args: returnDomains,
  mayAlso: [],
  weight: 8,
  guards: [
    noGuest<Return>('hypercall.return'),
    aimed<Return>({
      id: 'hypercall.return/nothing',
      unmodelled: 'there is nothing to answer',
      when: 'no exit of the guest waits for an answer',
      violated: ({ guest: label }, state) => guestOf(state, label).pending === undefined,
    }),
  ],
  accepts: [
    {
      id: 'hypercall.return/left',
      when: 'the VMM leaves in the exit what KVM has put there: zero, whatever an earlier call came to',
      source: EMULATE,
      applies: ({ sets }) => sets === 'no',
      accept: ({ guest: label }, state) => ({
        value: 0n,
        state: withGuest(state, label, { pending: undefined }),
      }),
    },
    {
      id: 'hypercall.return/answered',
      when: 'the VMM has put its answer there',
      accept: ({ guest: label, ret }, state) => ({
        value: guestOf(state, label).pending === '64' ? ret : ret & U32_MAX,
        state: withGuest(state, label, { pending: undefined }),
      }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, ({ pending }) => pending !== undefined);
    return label === undefined
      ? undefined
      : { guest: label, sets: pick(random, ['yes', 'yes', 'no']), ret: pick(random, [0n, 11n, 22n, U64_MAX]) };
  },
});
