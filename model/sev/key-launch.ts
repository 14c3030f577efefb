/** The launch of an SEV guest: commands of KVM_MEMORY_ENCRYPT_OP that end in the firmware. */
import { PAGE_MASK, PAGE_SIZE } from '../core/abi.ts';
import { choice, u32 } from '../core/domain.ts';
import { pick, type Random } from '../core/random.ts';
import { ARENA, ARENA_PAGES, withEntry, type State } from '../core/state.ts';
import type { SevPage, SevVm } from '../core/state-sev.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { isFailing, passed, vmOf, withMachine, withVm } from './key-machine.ts';
import {
  addr,
  aimed,
  chooseVm,
  drawVm,
  encryptRows,
  notForSnp,
  notSev,
  onVm,
  pagesOf,
  pinRows,
  SEV,
  vm,
  type OnVm,
} from './key-rows.ts';

export const FIRMWARE = 'SEV API, chapter 6';

/** States of a context. */
export const LAUNCHED = { UPDATE: 1, SECRET: 2, RUNNING: 3 } as const;

export const contextState = (state: State, { context }: SevVm): number | undefined =>
  context === undefined ? undefined : state.sev.contexts.get(context)?.state;

const noDevice = <A extends OnVm>(command: string): Guard<A> =>
  onVm<A>({
    id: `${command}/no-device`,
    errno: 'EBADF',
    when: 'KVM has no descriptor of /dev/sev from LAUNCH_START: it was not made, or the context came from another VM by a move',
    source: `${SEV}: __sev_issue_cmd(), sev_migrate_from()`,
    isSo: ({ hasDevice }) => !hasDevice,
  });

const wrongState = <A extends OnVm>(command: string, wanted: number, which: string): Guard<A> =>
  aimed<A>({
    id: `${command}/state`,
    errno: 'EIO',
    when: `the context is not in the state ${which}`,
    source: FIRMWARE,
    violated: ({ vm: label }, state) => contextState(state, vmOf(state, label)) !== wanted,
  });

/** Rows of a command that KVM hands to the firmware with the handle of the context. */
const handedOn = (command: string, wanted: number, which: string): readonly Guard<OnVm>[] => [
  ...encryptRows<OnVm>(command),
  notForSnp<OnVm>(command),
  notSev<OnVm>(command),
  noDevice<OnVm>(command),
  wrongState<OnVm>(command, wanted, which),
];

const inState =
  (wanted: number) =>
  (each: SevVm, state: State): boolean =>
    each.owner === undefined && contextState(state, each) === wanted;

/** The context goes on to the next state. */
const goesOn = (to: number) => (args: OnVm, state: State) => {
  const { context } = vmOf(state, args.vm);
  return { state: withMachine(state, { contexts: withEntry(state.sev.contexts, context as number, { state: to }) }) };
};

/** A descriptor of /dev/sev, or of another file. */
export const device = choice('sev', 'other');

interface OnDevice extends OnVm {
  readonly device: string;
}

/** What KVM makes of EBADF, which its firmware driver answers. */
export const otherDevice = <A extends OnDevice>(
  command: string,
  errno: 'EBADF' | 'ENOTTY',
  source?: string,
): Guard<A> => ({
  id: `${command}/other-device`,
  errno,
  when: '`sev_fd` is no descriptor of /dev/sev',
  source: `drivers/crypto/ccp/sev-dev.c: sev_issue_cmd_external_user()${source === undefined ? '' : `; ${source}`}`,
  violated: (args) => args.device === 'other',
  violate: (args) => ({ ...args, device: 'other' }),
});

/** Mostly the right one. */
export const drawDevice = (random: Random): 'sev' | 'other' =>
  pick(random, ['sev', 'sev', 'sev', 'sev', 'sev', 'other']);

const startDomains = { vm, device } as const;
type Start = ArgsOf<typeof startDomains>;

export const sevLaunchStart = defineTransition({
  name: 'sev.launch-start',
  realm: 'sev',
  summary: 'The firmware makes a context, with a key, and the ASID is bound to it.',
  does: '`KVM_MEMORY_ENCRYPT_OP` with KVM_SEV_LAUNCH_START, without blobs; `sev_fd` is a descriptor of /dev/sev, or of another file',
  source: `${SEV}: sev_launch_start(), sev_bind_asid()`,
  args: startDomains,
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 8,
  guards: [
    ...encryptRows<Start>('sev.launch-start'),
    notForSnp<Start>('sev.launch-start'),
    notSev<Start>('sev.launch-start'),
    otherDevice<Start>('sev.launch-start', 'EBADF'),
    {
      id: 'sev.launch-start/fails',
      errno: 'EIO',
      when: 'the firmware refuses LAUNCH_START',
      leaves: (_args, state) => passed(state, 'launch-start'),
      violated: (_args, state) => isFailing(state, 'launch-start'),
    },
    {
      id: 'sev.launch-start/not-activated',
      errno: 'EIO',
      when: 'the firmware refuses ACTIVATE; the new context is given up',
      leaves: (_args, state) => passed(passed(state, 'activate'), 'decommission'),
      violated: (_args, state) => isFailing(state, 'activate'),
    },
    aimed<Start>({
      id: 'sev.launch-start/asid-active',
      errno: 'EIO',
      when: 'the ASID is bound to a context already; the new one is given up',
      source: `${FIRMWARE}: ACTIVATE`,
      leaves: (_args, state) => passed(state, 'decommission'),
      violated: ({ vm: label }, state) => vmOf(state, label).context !== undefined,
    }),
  ],
  accepts: [
    {
      id: 'sev.launch-start/started',
      when: 'the guest has no context yet',
      accept: ({ vm: label }, state) => {
        const { contexts, nextContext } = state.sev;
        const started = withMachine(state, {
          contexts: withEntry(contexts, nextContext, { state: LAUNCHED.UPDATE }),
          nextContext: nextContext + 1,
        });
        return { state: withVm(started, label, { context: nextContext, hasDevice: true }) };
      },
    },
  ],
  draw: (context) => {
    const drawn = drawVm(
      ({ isActive, isSnp, owner, context: has }) => isActive && !isSnp && owner === undefined && has === undefined,
    )(context);
    return drawn && { ...drawn, device: drawDevice(context.random) };
  },
});

const dataDomains = { vm, addr, len: u32({ boundaries: [2n * PAGE_SIZE] }) } as const;
type Data = ArgsOf<typeof dataDomains>;

/** What becomes of a page that is encrypted in place: what was the host's is the guest's, and of the rest nothing is known. */
const encrypted = (page: SevPage | undefined, context: number): SevPage => ({
  context,
  word: page === undefined ? 0n : undefined,
});

export const sevLaunchUpdateData = defineTransition({
  name: 'sev.launch-update-data',
  realm: 'sev',
  summary: 'Encrypts memory of the process in place, as the guest’s.',
  does: '`KVM_MEMORY_ENCRYPT_OP` with KVM_SEV_LAUNCH_UPDATE_DATA of `len` bytes from `addr` on',
  source: `${SEV}: sev_launch_update_data()`,
  args: dataDomains,
  mayAlso: [],
  weight: 4,
  guards: [
    ...encryptRows<Data>('sev.launch-update-data'),
    notForSnp<Data>('sev.launch-update-data'),
    notSev<Data>('sev.launch-update-data'),
    ...pinRows<Data>('sev.launch-update-data', { bytes: ({ len }) => len, isWide: false }),
    noDevice<Data>('sev.launch-update-data'),
    wrongState<Data>('sev.launch-update-data', LAUNCHED.UPDATE, 'LUPDATE'),
    {
      id: 'sev.launch-update-data/parts',
      unmodelled:
        'how much is encrypted before the firmware refuses a length is a matter of which pages lie side by side',
      when: 'a part of a page is to be encrypted',
      violated: (args) => ((args.addr.offset | args.len) & PAGE_MASK) !== 0n,
      violate: (args) => ({ ...args, len: args.len | 8n }),
    },
  ],
  accepts: [
    {
      id: 'sev.launch-update-data/encrypted',
      when: 'whole pages are there',
      accept: (args, state) => {
        const { start, end } = pagesOf(args.addr, args.len);
        const { context } = vmOf(state, args.vm);
        const pages = new Map(state.sev.pages);
        for (let page = Number(start); page < Number(end); page++)
          pages.set(String(page), encrypted(pages.get(String(page)), context as number));
        return { state: withMachine(state, { pages }) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseVm(random, state, (each) => inState(LAUNCHED.UPDATE)(each, state));
    if (label === undefined) return undefined;
    const offset = BigInt(pick(random, [0, 0, 1, 2, 3, ARENA_PAGES - 1])) * PAGE_SIZE;
    return { vm: label, addr: { base: ARENA, offset }, len: pick(random, [1n, 1n, 2n]) * PAGE_SIZE };
  },
});

export const sevLaunchMeasure = defineTransition({
  name: 'sev.launch-measure',
  realm: 'sev',
  summary: 'The firmware measures what was encrypted; nothing is added from then on.',
  does: '`KVM_MEMORY_ENCRYPT_OP` with KVM_SEV_LAUNCH_MEASURE and a buffer of the right size',
  source: `${SEV}: sev_launch_measure()`,
  args: { vm },
  mayAlso: [],
  weight: 3,
  guards: handedOn('sev.launch-measure', LAUNCHED.UPDATE, 'LUPDATE'),
  accepts: [{ id: 'sev.launch-measure/measured', when: 'it is', accept: goesOn(LAUNCHED.SECRET) }],
  draw: drawVm(inState(LAUNCHED.UPDATE)),
});

export const sevLaunchFinish = defineTransition({
  name: 'sev.launch-finish',
  realm: 'sev',
  summary: 'The launch is over.',
  does: '`KVM_MEMORY_ENCRYPT_OP` with KVM_SEV_LAUNCH_FINISH',
  source: `${SEV}: sev_launch_finish()`,
  args: { vm },
  mayAlso: [],
  weight: 3,
  guards: handedOn('sev.launch-finish', LAUNCHED.SECRET, 'LSECRET'),
  accepts: [{ id: 'sev.launch-finish/finished', when: 'it is', accept: goesOn(LAUNCHED.RUNNING) }],
  draw: drawVm(inState(LAUNCHED.SECRET)),
});

export const sevGuestStatus = defineTransition({
  name: 'sev.guest-status',
  realm: 'sev',
  summary: 'The firmware tells the state of a context.',
  does: '`KVM_MEMORY_ENCRYPT_OP` with KVM_SEV_GUEST_STATUS',
  tells: 'the state: 1 LUPDATE, 2 LSECRET, 3 RUNNING',
  source: `${SEV}: sev_guest_status()`,
  args: { vm },
  mayAlso: [],
  weight: 4,
  guards: [
    ...encryptRows<OnVm>('sev.guest-status', true),
    notForSnp<OnVm>('sev.guest-status'),
    notSev<OnVm>('sev.guest-status'),
    noDevice<OnVm>('sev.guest-status'),
  ],
  accepts: [
    {
      id: 'sev.guest-status/told',
      when: 'KVM has a descriptor of /dev/sev, and so the VM a context',
      accept: ({ vm: label }, state) => ({
        state,
        value: BigInt(contextState(state, vmOf(state, label)) ?? 0),
      }),
    },
  ],
  draw: drawVm(({ isActive, isSnp }) => isActive && !isSnp),
});
