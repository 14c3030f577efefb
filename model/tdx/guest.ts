/** The guest runs: it loads, stores, and accepts pages. */
import { PAGE_SIZE } from '../core/abi.ts';
import { u64 } from '../core/domain.ts';
import type { Outcome } from '../core/outcome.ts';
import { pick, type Random } from '../core/random.ts';
import type { State, TdFrame } from '../core/state.ts';
import { defineTransition, type AnyCommand, type ArgsOf, type DrawContext, type Guard } from '../core/transition.ts';
import { augmented } from './conversion.ts';
import {
  cached,
  isBroken,
  lineOf,
  machineCheck,
  seenByGuest,
  storedByGuest,
  touched,
  withCopy,
  withLine,
  type Spot,
} from './lines.ts';
import {
  filledWith,
  GFNS,
  type Gfn,
  guestLine,
  has,
  isOwned,
  isTdx,
  LINES,
  restarted,
  tdOf,
  vcpuOf,
  VCPUS,
  withFrame,
  withTd,
  withVcpu,
} from './machine.ts';
import {
  aimed,
  chooseFrame,
  chooseTd,
  chooseValue,
  chooseVcpu,
  dead,
  frameAt,
  gfn,
  IMPORT_FAILS,
  line,
  noTd,
  noVcpu,
  tdLabel,
  TDX_SOURCE,
  vcpu,
  width,
  world,
  type OnFrame,
  type OnVcpu,
} from './rows.ts';

const WORLDS = ['private', 'shared'] as const;

/** The vCPU has been entered, so that a CPU holds state of it. */
export const entered = (state: State, { td, vcpu: id }: OnVcpu): State =>
  vcpuOf(state, td, id)?.isAssociated === true ? state : withVcpu(state, td, id, { isAssociated: true });

const internalError: Outcome = { kind: 'status', status: 'KVM_EXIT_INTERNAL_ERROR' };

/** The TD cannot be entered: its guest had a machine check, or its vCPUs were flushed for good. */
export const cannotEnter = ({ td }: OnVcpu, state: State): boolean =>
  tdOf(state, td).ended === 'machine-check' || tdOf(state, td).flush !== 'none';

export const ended = <A extends OnVcpu>(command: string): Guard<A> => ({
  id: `${command}/ended`,
  only: { feature: 'tdx' },
  result: 'KVM_EXIT_INTERNAL_ERROR',
  outcome: () => internalError,
  when: 'the TD had a machine check, or its vCPUs were flushed for good: the module does not enter it',
  source: `${TDX_SOURCE}: tdx_handle_exit()`,
  violated: cannotEnter,
});

/** Rows of every command that runs a vCPU, up to where the guest does something. */
export const runRows = <A extends OnVcpu>(command: string): readonly Guard<A>[] => [
  noTd<A>(command),
  noVcpu<A>(command),
  dead<A>(command),
  {
    id: `${command}/exit-unanswered`,
    only: { feature: 'tdx' },
    unmodelled: 'KVM_RUN would answer the exit with what the VMM left in it',
    when: 'the vCPU has asked for a conversion, and the VMM has not answered',
    source: `${TDX_SOURCE}: tdx_complete_vmcall_map_gpa()`,
    violated: (args, state) => vcpuOf(state, args.td, args.vcpu)?.asks !== undefined,
  },
  aimed<A>(
    { vcpu: VCPUS },
    {
      id: `${command}/not-ready`,
      errno: 'EINVAL',
      when: 'the TD is not finalized, or, with TDX, the vCPU not initialized',
      source: `arch/x86/kvm/x86.c: kvm_x86_vcpu_pre_run(); ${TDX_SOURCE}: tdx_vcpu_needs_initialization()`,
      violated: (args, state) =>
        tdOf(state, args.td).phase !== 'runnable' || vcpuOf(state, args.td, args.vcpu)?.isInitialized !== true,
    },
  ),
  aimed<A>({}, ended<A>(command)),
];

interface OnLine extends OnVcpu, OnFrame {
  readonly line: string;
  readonly world: string;
}

const isPrivateAccess = ({ world: wanted }: OnLine): boolean => wanted === 'private';

const memoryFault = ({ gfn: frame }: OnFrame, isPrivate: boolean): Outcome => ({
  kind: 'memory-fault',
  errno: 'EFAULT',
  gpa: BigInt(frame) * PAGE_SIZE,
  private: isPrivate,
});

/** A guest of s390 has one address for a frame, whatever world it is in. */
const worldOf = (args: OnLine, state: State): boolean =>
  has(state, 'ultravisor') ? frameAt(args, state).private : isPrivateAccess(args);

export const spotOf = (args: OnLine, state: State): Spot => ({
  td: args.td,
  gfn: args.gfn,
  line: args.line,
  which: seenByGuest(frameAt(args, state), isTdx(state) ? args.world : 'private'),
});

const choices = { gfn: GFNS, line: LINES, world: WORLDS } as const;

const row = <A extends OnLine>(each: Guard<A>): Guard<A> => aimed<A>(choices, each);

const isFound = (args: OnLine, state: State, entry: TdFrame['entry']): boolean =>
  isTdx(state) && isPrivateAccess(args) && frameAt(args, state).private && frameAt(args, state).entry === entry;

/** Rows about the frame that the guest touches, before its lines are. */
const frameRows = <A extends OnLine>(command: string): readonly Guard<A>[] => [
  row<A>({
    id: `${command}/other-world`,
    only: { feature: 'tdx' },
    result: 'MEMORY_FAULT EFAULT',
    outcome: (args) => memoryFault(args, isPrivateAccess(args)),
    leaves: (args, state) => entered(state, args),
    group: 'frame',
    when: 'the guest uses the private address of a shared frame, or the other way round',
    source: 'arch/x86/kvm/mmu/mmu.c: kvm_mmu_faultin_pfn(), kvm_mmu_prepare_memory_fault_exit()',
    violated: (args, state) => isPrivateAccess(args) !== frameAt(args, state).private,
  }),
  row<A>({
    id: `${command}/blocked`,
    only: { feature: 'tdx' },
    unmodelled: 'KVM holds the page to be mapped, and tries for ever',
    group: 'frame',
    when: 'the entry of the frame is blocked',
    source: `${TDX_SOURCE}: tdx_handle_ept_violation()`,
    violated: (args, state) => isFound(args, state, 'blocked'),
  }),
  row<A>({
    id: `${command}/not-accepted`,
    only: { feature: 'tdx' },
    errno: 'EIO',
    leaves: (args, state) => {
      const after =
        frameAt(args, state).entry === 'none' ? augmented(state, args.td, args.gfn, frameAt(args, state)) : state;
      return withTd(entered(after, args), args.td, { ended: 'dead' });
    },
    group: 'frame',
    when: 'the guest has not accepted the page, which KVM gives it first where there is none: KVM gives the VM up',
    source: `${TDX_SOURCE}: tdx_handle_ept_violation(), tdx_is_sept_violation_unexpected_pending()`,
    violated: (args, state) => isFound(args, state, 'none') || isFound(args, state, 'pending'),
  }),
  row<A>({
    id: `${command}/ciphertext-changed`,
    only: { feature: 'ultravisor' },
    result: 'SIGSEGV',
    outcome: () => ({ kind: 'signal', signal: 'SIGSEGV' }),
    group: 'frame',
    when: 'the host changed the page while it was exported: it cannot be imported any more',
    source: IMPORT_FAILS,
    violated: (args, state) => frameAt(args, state).exported === 'changed',
    leaves: (args, state) => withFrame(state, args.td, args.gfn, { isSwapped: false }),
  }),
];

/** The state in which the guest has the page: it is secure where it was exported, or where it was nobody's. */
function imported(args: OnLine, state: State): State {
  const frame = frameAt(args, state);
  if (!has(state, 'ultravisor') || !frame.private) return state;
  if (isOwned(frame)) return frame.exported === 'no' ? state : withFrame(state, args.td, args.gfn, { exported: 'no' });
  return withFrame(state, args.td, args.gfn, { entry: 'mapped', page: filledWith(frame.page, guestLine(0n)) });
}

/** The state in which the guest is about to make its access. */
const running = (args: OnLine, state: State): State =>
  touched(imported(args, entered(state, args)), spotOf(args, state));

/** The guest meets a line of its own that is not as it left it. */
const meetsBroken = (args: OnLine, state: State): boolean =>
  isFound(args, state, 'mapped') && isBroken(lineOf(frameAt(args, state), 'page', args.line));

const loadDomains = { td: tdLabel, vcpu, gfn, line, world } as const;

type Load = ArgsOf<typeof loadDomains>;

const loadedCopy = (args: Load, state: State): bigint | undefined =>
  cached(lineOf(frameAt(args, state), 'page', args.line), isPrivateAccess(args) ? 'guest' : 'host').value;

/** The copy that a load leaves in the cache. */
function withLoaded(args: Load, state: State): State {
  const after = running(args, state);
  if (!has(state, 'c-bit')) return after;
  const owner = isPrivateAccess(args) ? 'guest' : 'host';
  const found = lineOf(frameAt(args, after), 'page', args.line);
  const copy = cached(found, owner);
  const before = owner === 'guest' ? found.guestCopy : found.hostCopy;
  return before === undefined ? withLine(after, spotOf(args, after), withCopy(found, owner, copy)) : after;
}

function valueFor(args: Load, state: State): bigint {
  const after = withLoaded(args, state);
  const spot = spotOf(args, after);
  const found = lineOf(frameAt(args, after), spot.which, spot.line);
  return has(state, 'c-bit') ? (loadedCopy(args, after) ?? 0n) : found.value;
}

/** A frame to touch, in its own world mostly, and one that has a page. */
function drawAccess({ random, state }: DrawContext): (OnLine & Load) | undefined {
  const label = chooseTd(random, state, ({ phase, ended: how }) => phase === 'runnable' && how === 'no');
  if (label === undefined) return undefined;
  const td = tdOf(state, label);
  const wanted = random.below(3);
  const chosen = chooseFrame(random, state, label, (frame) => {
    const isUsable = frame.private && (!isTdx(state) || frame.entry === 'mapped');
    if (wanted === 0) return !frame.private;
    return wanted === 1 ? isUsable : isUsable && frame.page.lines.some(isBroken);
  });
  const own = td.frames[Number(chosen)]?.private === true ? 'private' : 'shared';
  return {
    td: label,
    vcpu: chooseVcpu(random, td, true),
    gfn: chosen,
    line: pick(random, LINES),
    world: random.below(6) === 0 ? pick(random, WORLDS) : own,
  };
}

export const tdLoad = defineTransition({
  name: 'td.load',
  realm: 'td',
  readsSecrets: true,
  summary: 'The guest loads the word of a line. Where the line is not as the guest left it, it pays for that.',
  does: '`KVM_RUN` on `vcpu` until the guest has loaded the first word of line `line` of frame `gfn`, through its `world` address',
  tells: 'the word',
  source: `${TDX_SOURCE}: tdx_vcpu_run(), tdx_handle_exit()`,
  args: loadDomains,
  mayAlso: [],
  weight: 12,
  guards: [
    ...runRows<Load>('td.load'),
    ...frameRows<Load>('td.load'),
    row<Load>({
      id: 'td.load/machine-check',
      only: { feature: 'tdx' },
      result: 'machine check, ends the guest',
      outcome: () => ({ kind: 'machine-check', ends: 'guest' }),
      leaves: (args, state) => machineCheck(entered(state, args), spotOf(args, state)),
      group: 'frame',
      when: 'the line is foreign or poisoned, and the core can go on: the TD is gone, and the page is marked',
      source: `${TDX_SOURCE}: tdx_handle_exit(); arch/x86/kernel/cpu/mce/core.c: do_machine_check()`,
      violated: (args, state) => meetsBroken(args, state) && !state.td.coreStops,
    }),
    row<Load>({
      id: 'td.load/shutdown',
      only: { feature: 'tdx' },
      result: 'shutdown',
      outcome: () => ({ kind: 'shutdown' }),
      leaves: (_args, state) =>
        restarted(state, { consumptions: [{ by: 'guest', ended: 'machine', recoverable: false }] }),
      group: 'frame',
      when: 'the line is foreign or poisoned, and the core cannot go on: the machine is gone',
      source: 'RFC v1 "KVM: unmap guest memory using poisoned pages", cover letter; TDX module EAS, chapter 14',
      violated: (args, state) => meetsBroken(args, state) && state.td.coreStops,
    }),
    row<Load>({
      id: 'td.load/gibberish',
      only: { feature: 'c-bit' },
      result: 'ciphertext',
      outcome: () => ({ kind: 'ciphertext' }),
      leaves: withLoaded,
      group: 'frame',
      when: 'the line is not in the cache for the key that is asked for, and was last written under the other',
      source:
        'thread of RFC v1 "KVM: unmap guest memory using poisoned pages": Dave Hansen; AMD64 manual, volume 2, 15.34.8',
      violated: (args, state) => has(state, 'c-bit') && loadedCopy(args, state) === undefined,
    }),
  ],
  accepts: [
    {
      id: 'td.load/loaded',
      when: 'the guest may have the page, and the line is in order',
      accept: (args, state) => ({ state: withLoaded(args, state), value: valueFor(args, state) }),
    },
  ],
  draw: drawAccess,
});

const storeDomains = { td: tdLabel, vcpu, gfn, line, world, width, value: u64() } as const;

type Store = ArgsOf<typeof storeDomains>;

function stored(args: Store, before: State): State {
  const state = running(args, before);
  const spot = spotOf(args, state);
  const frame = frameAt(args, state);
  const isPrivate = worldOf(args, state);
  const found = lineOf(frame, spot.which, spot.line);
  const after = withLine(state, spot, storedByGuest(state, found, isPrivate, args.value, args.width === 'line'));
  // Outside of TDX a page is the guest's as soon as it has put something there.
  const isNew = has(state, 'c-bit') && isPrivate && frame.private && !isOwned(frame);
  return isNew ? withFrame(after, args.td, args.gfn, { entry: 'mapped' }) : after;
}

/** In `s390-pv` a page that is shared keeps what is in it: from then on it is no secret. */
const isShown = ({ td, gfn: frame }: Store, later: readonly AnyCommand[]): boolean =>
  later.some(({ name, args }) => name === 'td.convert' && args['td'] === td && args['gfn'] === frame);

/** Whether the word goes to memory of the guest alone, and stays there. */
const storesSecret = (args: Store, state: State, later: readonly AnyCommand[]): boolean =>
  worldOf(args, state) && !(has(state, 'ultravisor') && isShown(args, later));

export const tdStore = defineTransition({
  name: 'td.store',
  realm: 'td',
  storesSecret,
  summary: 'The guest stores a word, or a whole line.',
  does: '`KVM_RUN` on `vcpu` until the guest has stored `value` into the first word of line `line` of frame `gfn`, or into the whole line with zeros behind it, through its `world` address',
  source: `${TDX_SOURCE}: tdx_vcpu_run(), tdx_handle_exit()`,
  args: storeDomains,
  mayAlso: [],
  weight: 10,
  guards: [...runRows<Store>('td.store'), ...frameRows<Store>('td.store')],
  accepts: [
    {
      id: 'td.store/still-poisoned',
      only: { feature: 'tdx' },
      when: 'the line is foreign or poisoned, and a part of it is stored: it stays poisoned, and nothing is raised',
      source: 'TDX module EAS, chapter 14',
      applies: (args, state) => args.width === 'word' && meetsBroken(args, state),
      accept: (args, state) => ({ state: stored(args, state) }),
    },
    {
      id: 'td.store/healed',
      only: { feature: 'tdx' },
      when: 'the line is foreign or poisoned, and all of it is stored: it is in order again',
      source: 'TDX module EAS, chapter 14',
      applies: (args, state) => args.width === 'line' && meetsBroken(args, state),
      accept: (args, state) => ({ state: stored(args, state) }),
    },
    {
      id: 'td.store/stored',
      when: 'the guest may have the page, and the line is in order or the whole of it is not asked for',
      accept: (args, state) => ({ state: stored(args, state) }),
    },
  ],
  draw: (context) => {
    const access = drawAccess(context);
    const { random } = context;
    return access && { ...access, width: pick(random, ['word', 'word', 'line']), value: chooseValue(random) };
  },
});

const acceptDomains = { td: tdLabel, vcpu, gfn } as const;

type Accept = ArgsOf<typeof acceptDomains>;

const acceptRow = (each: Guard<Accept>): Guard<Accept> => aimed<Accept>({ gfn: GFNS }, each);

const drawPending = (random: Random, state: State, label: string): Gfn =>
  chooseFrame(random, state, label, ({ private: isPrivate, entry }) =>
    random.below(3) === 0 ? isPrivate && entry === 'none' : entry === 'pending',
  );

export const tdAccept = defineTransition({
  name: 'td.accept',
  realm: 'td',
  summary: 'The guest accepts a page, which is zeroed.',
  does: '`KVM_RUN` on `vcpu` until the guest is through with TDG.MEM.PAGE.ACCEPT of frame `gfn`',
  source: `${TDX_SOURCE}: tdx_handle_ept_violation(); TDX module: TDG.MEM.PAGE.ACCEPT`,
  only: { feature: 'tdx' },
  args: acceptDomains,
  mayAlso: [],
  weight: 10,
  guards: [
    ...runRows<Accept>('td.accept'),
    acceptRow({
      id: 'td.accept/shared',
      result: 'MEMORY_FAULT EFAULT',
      outcome: (args) => memoryFault(args, true),
      leaves: (args, state) => entered(state, args),
      group: 'frame',
      when: 'the frame is shared',
      source: 'arch/x86/kvm/mmu/mmu.c: kvm_mmu_faultin_pfn(), kvm_mmu_prepare_memory_fault_exit()',
      violated: (args, state) => !frameAt(args, state).private,
    }),
    acceptRow({
      id: 'td.accept/blocked',
      unmodelled: 'KVM holds the page to be mapped, and tries for ever',
      group: 'frame',
      when: 'the entry of the frame is blocked',
      violated: (args, state) => frameAt(args, state).entry === 'blocked',
    }),
    acceptRow({
      id: 'td.accept/accepted-before',
      result: 'TDX_PAGE_ALREADY_ACCEPTED',
      outcome: () => ({ kind: 'status', status: 'TDX_PAGE_ALREADY_ACCEPTED' }),
      leaves: (args, state) => entered(state, args),
      group: 'frame',
      when: 'the guest has the page already',
      violated: (args, state) => frameAt(args, state).private && frameAt(args, state).entry === 'mapped',
    }),
  ],
  accepts: [
    {
      id: 'td.accept/accepted',
      when: 'the page is pending, or there is none and KVM gives one: it is zeroed with whole lines, which mends them',
      accept: (args, state) => {
        const page = filledWith(frameAt(args, state).page, guestLine(0n));
        const after = withFrame(entered(state, args), args.td, args.gfn, { entry: 'mapped', tracked: false, page });
        return { state: after };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseTd(random, state, ({ phase, ended: how }) => phase === 'runnable' && how === 'no');
    if (label === undefined) return undefined;
    return { td: label, vcpu: chooseVcpu(random, tdOf(state, label), true), gfn: drawPending(random, state, label) };
  },
});
