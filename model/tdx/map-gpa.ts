/** The guest asks for a conversion, by a hypercall that the VMM answers in chunks. */
import { U64_MAX, PAGE_MASK, PAGE_SIZE } from '../core/abi.ts';
import { choice, u64 } from '../core/domain.ts';
import type { Outcome } from '../core/outcome.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import type { State, TdVcpu } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { cannotEnter, entered, runRows } from './guest.ts';
import { GFNS, tdOf, vcpuOf, VCPUS, withVcpu } from './machine.ts';
import {
  aimed,
  chooseTd,
  chooseVcpu,
  dead,
  noTd,
  noVcpu,
  tdLabel,
  TDX_SOURCE,
  vary,
  vcpu,
  type OnVcpu,
} from './rows.ts';

/** Guest addresses with this bit are shared. Source: TDX_SHARED_BIT_PWL_4. */
const SHARED_BIT = 1n << 47n;
/** Source: TDX_MAP_GPA_MAX_LEN. */
const CHUNK = 2n << 20n;
const EAGAIN = 11n;
const EINVAL = 22n;

const status = (name: string, gpa?: bigint): Outcome => ({
  kind: 'status',
  status: `TDVMCALL_STATUS_${name}`,
  ...(gpa !== undefined && { gpa }),
});

const isShared = (gpa: bigint): boolean => (gpa & SHARED_BIT) !== 0n;

/** The exit for the next chunk. */
const asked = ({ next, end }: { readonly next: bigint; readonly end: bigint }): Outcome => ({
  kind: 'hypercall',
  gpa: next & ~SHARED_BIT,
  pages: (end - next < CHUNK ? end - next : CHUNK) / PAGE_SIZE,
  private: !isShared(next),
});

const asking = (state: State, { td, vcpu: id }: OnVcpu, asks: TdVcpu['asks']): State =>
  withVcpu(entered(state, { td, vcpu: id }), td, id, { asks });

const askDomains = {
  td: tdLabel,
  vcpu,
  gpa: u64({ boundaries: [SHARED_BIT, SHARED_BIT - PAGE_SIZE, SHARED_BIT + PAGE_SIZE] }),
  size: u64({ boundaries: [CHUNK, CHUNK + PAGE_SIZE, 3n * CHUNK] }),
} as const;

type Ask = ArgsOf<typeof askDomains>;

function isInvalid({ gpa, size }: Ask, { config: { machine } }: State): boolean {
  const end = (gpa + size) & U64_MAX;
  const last = end - 1n;
  const isIllegal = (address: bigint): boolean => address >> BigInt(machine.vcpuPhysicalBits) !== 0n;
  return end <= gpa || isIllegal(gpa) || isIllegal(last) || isShared(gpa) !== isShared(last);
}

const answered = (name: string) => ({
  result: `TDVMCALL_STATUS_${name}`,
  outcome: ({ gpa }: Ask): Outcome => status(name, gpa),
  leaves: (args: Ask, state: State): State => entered(state, args),
});

export const tdMapGpa = defineTransition({
  name: 'td.map-gpa',
  realm: 'td',
  summary: 'The guest asks the VMM to convert a range of its addresses; the VMM is asked in chunks of 2 MiB.',
  does: '`KVM_RUN` on `vcpu` until the guest is through with TDVMCALL_MAP_GPA of `size` bytes from `gpa` on, or KVM_RUN returns because of it; nothing is converted by that',
  source: `${TDX_SOURCE}: tdx_map_gpa(), __tdx_map_gpa()`,
  only: { feature: 'tdx' },
  args: askDomains,
  mayAlso: [],
  weight: 6,
  guards: [
    ...runRows<Ask>('td.map-gpa'),
    {
      ...answered('SUBFUNC_UNSUPPORTED'),
      id: 'td.map-gpa/no-exit',
      when: 'the VMM has not enabled the exit',
      violated: ({ td }, state) => !tdOf(state, td).exitsOnHypercall,
      violate: vary<Ask>({}, ({ td }, state) => !tdOf(state, td).exitsOnHypercall),
    },
    {
      ...answered('INVALID_OPERAND'),
      id: 'td.map-gpa/invalid-range',
      when: 'the range is empty or wraps, is no guest physical memory, or has ends that disagree on the shared bit',
      violated: isInvalid,
      violate: (args, _state, random) => {
        const [gpa, size] = pick(random, [
          [SHARED_BIT - PAGE_SIZE, 2n * PAGE_SIZE],
          [0n, 0n],
          [U64_MAX & ~PAGE_MASK, PAGE_SIZE],
          [1n << 52n, PAGE_SIZE],
        ] as const);
        return { ...args, gpa: gpa | (args.gpa & PAGE_MASK), size };
      },
    },
    {
      ...answered('ALIGN_ERROR'),
      id: 'td.map-gpa/unaligned',
      when: 'the start or the size is not a multiple of the page size',
      violated: ({ gpa, size }) => ((gpa | size) & PAGE_MASK) !== 0n,
      violate: (args) => ({ ...args, gpa: args.gpa | 8n }),
    },
    {
      id: 'td.map-gpa/asks',
      result: 'HYPERCALL',
      outcome: ({ gpa, size }) => asked({ next: gpa, end: gpa + size }),
      leaves: (args, state) => asking(state, args, { next: args.gpa, end: args.gpa + args.size }),
      when: 'the range can be converted: the VMM is asked for its first 2 MiB',
      violated: () => true,
    },
  ],
  accepts: [],
  draw: ({ random, state }) => {
    const label = chooseTd(random, state, ({ phase, ended: how }) => phase === 'runnable' && how === 'no');
    if (label === undefined) return undefined;
    const gpa = BigInt(pick(random, GFNS)) * PAGE_SIZE + (random.below(2) === 0 ? SHARED_BIT : 0n);
    const size = pick(random, [PAGE_SIZE, 2n * PAGE_SIZE, CHUNK, CHUNK + PAGE_SIZE, 3n * CHUNK]);
    return { td: label, vcpu: chooseVcpu(random, tdOf(state, label), true), gpa, size };
  },
});

const answerDomains = {
  td: tdLabel,
  vcpu,
  ret: u64({ boundaries: [EAGAIN, EINVAL] }),
  event: choice('no', 'yes'),
} as const;

type Answer = ArgsOf<typeof answerDomains>;

const asksOf = (args: OnVcpu, state: State): NonNullable<TdVcpu['asks']> | undefined =>
  vcpuOf(state, args.td, args.vcpu)?.asks;

/** The first address that was not asked for yet. */
const following = (args: OnVcpu, state: State): bigint => (asksOf(args, state)?.next ?? 0n) + CHUNK;

const isThrough = (args: OnVcpu, state: State): boolean => following(args, state) >= (asksOf(args, state)?.end ?? 0n);

const goesOn = (args: Answer, state: State): boolean => args.ret === 0n && !isThrough(args, state);

/** The vCPU with an answered exit; the guest goes on where the TD can be entered. */
const through = (args: Answer, state: State): State => asking(state, args, undefined);

const answerRow = (each: Guard<Answer>): Guard<Answer> => ({
  ...each,
  group: 'answer',
  violate: vary<Answer>(
    { vcpu: VCPUS, ret: [0n, EAGAIN, EINVAL], event: ['no', 'yes'] },
    (args, state) => asksOf(args, state) !== undefined && each.violated(args, state),
  ),
});

/** Where nobody asks, there is something to be aimed from all the same. */
function anyVcpu(random: Random, state: State): Pick<Answer, 'td' | 'vcpu'> | undefined {
  const label = random.below(4) === 0 ? chooseTd(random, state, ({ phase }) => phase === 'runnable') : undefined;
  return label === undefined ? undefined : { td: label, vcpu: chooseVcpu(random, tdOf(state, label), true) };
}

export const tdMapGpaReturn = defineTransition({
  name: 'td.map-gpa-return',
  realm: 'td',
  summary: 'The VMM answers for a chunk, and the guest hears of it, or the VMM is asked for the next.',
  does: '`ret` is put into the exit’s `hypercall.ret`, an interrupt is made pending if `event` is yes, and then `KVM_RUN` on `vcpu` until the guest is through with the call or KVM_RUN returns because of it',
  source: `${TDX_SOURCE}: tdx_complete_vmcall_map_gpa()`,
  only: { feature: 'tdx' },
  args: answerDomains,
  mayAlso: [],
  weight: 6,
  guards: [
    noTd<Answer>('td.map-gpa-return'),
    noVcpu<Answer>('td.map-gpa-return'),
    dead<Answer>('td.map-gpa-return'),
    {
      id: 'td.map-gpa-return/nothing-asked',
      unmodelled: 'there is no exit to answer, so that the guest just runs',
      when: 'the vCPU has not asked',
      violated: (args, state) => asksOf(args, state) === undefined,
    },
    {
      id: 'td.map-gpa-return/unknown-answer',
      group: 'answer',
      errno: 'EINVAL',
      when: 'the answer is none of 0, EAGAIN and EINVAL',
      leaves: (args, state) => withVcpu(state, args.td, args.vcpu, { asks: undefined }),
      violated: ({ ret }) => ret !== 0n && ret !== EAGAIN && ret !== EINVAL,
      violate: (args, _state, random) => ({ ...args, ret: pick(random, [1n, U64_MAX, U64_MAX - EINVAL + 1n]) }),
    },
    answerRow({
      id: 'td.map-gpa-return/next-chunk',
      result: 'HYPERCALL',
      outcome: (args, state) => asked({ next: following(args, state), end: asksOf(args, state)?.end ?? 0n }),
      leaves: (args, state) =>
        withVcpu(state, args.td, args.vcpu, {
          asks: { next: following(args, state), end: asksOf(args, state)?.end ?? 0n },
        }),
      when: 'the chunk is done, more is left, and no event is pending: the VMM is asked for the next',
      violated: (args, state) => goesOn(args, state) && args.event === 'no',
    }),
    aimed<Answer>(
      { vcpu: VCPUS },
      {
        id: 'td.map-gpa-return/ended',
        group: 'answer',
        result: 'KVM_EXIT_INTERNAL_ERROR',
        outcome: () => ({ kind: 'status', status: 'KVM_EXIT_INTERNAL_ERROR' }),
        leaves: (args, state) => withVcpu(state, args.td, args.vcpu, { asks: undefined }),
        when: 'the guest is to hear of the answer, and cannot be entered',
        source: `${TDX_SOURCE}: tdx_handle_exit()`,
        violated: (args, state) =>
          cannotEnter(args, state) &&
          asksOf(args, state) !== undefined &&
          !(goesOn(args, state) && args.event === 'no'),
      },
    ),
    answerRow({
      id: 'td.map-gpa-return/interrupted',
      result: 'TDVMCALL_STATUS_RETRY',
      outcome: (args, state) => status('RETRY', following(args, state)),
      leaves: through,
      when: 'the chunk is done, more is left, and an event is pending: the guest is to ask again for the rest',
      violated: (args, state) => !cannotEnter(args, state) && goesOn(args, state) && args.event === 'yes',
    }),
    answerRow({
      id: 'td.map-gpa-return/again',
      result: 'TDVMCALL_STATUS_RETRY',
      outcome: (args, state) => status('RETRY', asksOf(args, state)?.next),
      leaves: through,
      when: 'the answer is EAGAIN: the guest is to ask again for this chunk',
      violated: (args, state) => !cannotEnter(args, state) && args.ret === EAGAIN,
    }),
    answerRow({
      id: 'td.map-gpa-return/refused',
      result: 'TDVMCALL_STATUS_INVALID_OPERAND',
      outcome: (args, state) => status('INVALID_OPERAND', asksOf(args, state)?.next),
      leaves: through,
      when: 'the answer is EINVAL',
      violated: (args, state) => !cannotEnter(args, state) && args.ret === EINVAL,
    }),
    {
      id: 'td.map-gpa-return/done',
      result: 'TDVMCALL_STATUS_SUCCESS',
      outcome: () => status('SUCCESS'),
      leaves: through,
      when: 'the last chunk is done',
      violated: () => true,
    },
  ],
  accepts: [],
  draw: ({ random, state }) => {
    const asksAny = [...state.td.tds].flatMap(([td, { vcpus }]) =>
      VCPUS.filter((id) => vcpus.get(id)?.asks !== undefined).map((id) => ({ td, vcpu: id })),
    );
    const chosen = pickOr(random, asksAny) ?? anyVcpu(random, state);
    return (
      chosen && { ...chosen, ret: pick(random, [0n, 0n, 0n, EAGAIN, EINVAL]), event: pick(random, ['no', 'no', 'yes']) }
    );
  },
});
