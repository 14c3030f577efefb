/** What the commands on guests have in common: arguments, rows, and how they are drawn. */
import { choice, guest, type ArgValue } from '../core/domain.ts';
import type { McCpu, McGuest, McPage } from '../core/machine-check.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import type { Label, State } from '../core/state.ts';
import type { Guard } from '../core/transition.ts';
import { cpuOf, CPUS, GFNS, guestOf, isVirtual, LINES, pageAt, pageOf } from './machine.ts';

export const MCE_SOURCE = 'arch/x86/kernel/cpu/mce/core.c';
export const MF_SOURCE = 'mm/memory-failure.c';
export const THREAD = 'thread of "x86/mm: Don\'t try to change poison pages to uncacheable in a guest", May 2020';
/** Rows that no kernel has: a program cannot ask for what is not there. */
export const HARNESS = 'docs/adr/0011-machine-check.md: what is refused by the harness';

export const guestLabel = guest();
export const gfn = choice(...GFNS);
export const line = choice(...LINES);
export const cpu = choice(...CPUS);

export const guestDomains = { guest: guestLabel } as const;
export const frameDomains = { guest: guestLabel, gfn } as const;
export const cpuDomains = { guest: guestLabel, cpu } as const;

export interface OnGuest {
  readonly guest: Label;
}

export interface OnFrame extends OnGuest {
  readonly gfn: string;
}

export interface OnCpu extends OnGuest {
  readonly cpu: string;
}

/** The values that arguments may take in place of those that they have. */
type Choices = Readonly<Record<string, readonly ArgValue[]>>;

type Naming = OnGuest & { readonly gfn?: string };

/** A row with a way to break it: by the guest, and by what is listed, among arguments for which `canAsk` holds. */
const aimedWhere = <A extends Naming>(
  canAsk: (args: A, state: State) => boolean,
  choices: Choices,
  row: Guard<A>,
): Guard<A> => ({
  ...row,
  violate: (args, state, random) => {
    let all: readonly A[] = [...state.mc.guests.keys()].map((label) => ({ ...args, guest: label }));
    for (const [name, values] of Object.entries(choices))
      all = all.flatMap((each) => values.map((value) => ({ ...each, [name]: value })));
    return pickOr(
      random,
      all.filter((each) => canAsk(each, state) && row.violated(each, state)),
    );
  },
});

const isPlugged = ({ guest: label, gfn: at }: Naming, state: State): boolean =>
  at === undefined || pageAt(guestOf(state, label), at) !== undefined;

/** The row with a way to break it. It may take for granted that the frame is plugged. */
export const aimed = <A extends Naming>(choices: Choices, row: Guard<A>): Guard<A> =>
  aimedWhere(isPlugged, choices, row);

/** The row, which is about whether the frame is plugged, with a way to break it. */
export const aimedAtPlug = <A extends Naming>(row: Guard<A>): Guard<A> => aimedWhere(() => true, { gfn: GFNS }, row);

const NOBODY = 'none';

/** Behind this row there is a guest. */
export const noGuest = <A extends OnGuest>(command: string): Guard<A> => ({
  id: `${command}/no-guest`,
  errno: 'EBADF',
  when: 'no guest was created under the label, or it was destroyed',
  source: HARNESS,
  violated: (args, state) => !state.mc.guests.has(args.guest),
  violate: (args) => ({ ...args, guest: NOBODY }),
});

/** Behind this row the guest runs. */
export const ended = <A extends OnGuest>(command: string): Guard<A> =>
  aimed<A>(
    {},
    {
      id: `${command}/ended`,
      errno: 'EIO',
      when: 'the guest has ended and was not rebooted',
      source: HARNESS,
      violated: (args, state) => guestOf(state, args.guest).state !== 'running',
    },
  );

/** Behind this row the guest has memory, which the hardware and the host know. */
export const noMemory = <A extends OnGuest>(command: string): Guard<A> =>
  aimed<A>(
    {},
    {
      id: `${command}/no-memory`,
      errno: 'EIO',
      when: 'the VMM of the guest was killed; or, without a VMM, its kernel has panicked',
      source: HARNESS,
      violated: (args, state) => {
        const { state: now } = guestOf(state, args.guest);
        return isVirtual(state) ? now === 'killed' : now !== 'running';
      },
    },
  );

export const unplugged = <A extends OnFrame>(command: string): Guard<A> =>
  aimedAtPlug<A>({
    id: `${command}/unplugged`,
    only: { feature: 'virtual' },
    errno: 'EFAULT',
    when: 'the frame was unplugged',
    source: HARNESS,
    violated: (args, state) => !isPlugged(args, state),
  });

/** Behind this row there is a frame that something can happen to. */
export const noFrame = <A extends OnFrame>(command: string): Guard<A> =>
  aimed<A>(
    { gfn: GFNS },
    {
      id: `${command}/no-frame`,
      only: { feature: 'virtual' },
      errno: 'ENOENT',
      when: 'the host took the frame from behind the guest frame, and nothing backs it',
      source: HARNESS,
      violated: (args, state) => pageOf(state, args.guest, args.gfn).backing === undefined,
    },
  );

/** Behind this row the CPU runs. */
export const busy = <A extends OnCpu>(command: string): Guard<A> =>
  aimed<A>(
    { cpu: CPUS },
    {
      id: `${command}/busy`,
      errno: 'EBUSY',
      when: 'the CPU is out of the guest, or in the handler of machine checks',
      source: HARNESS,
      violated: (args, state) => cpuOf(state, args.guest, args.cpu).stage !== 'runs',
    },
  );

/** A guest of the wanted kind; now and then any. */
export const chooseGuest = (
  random: Random,
  state: State,
  wanted: (guest: McGuest) => boolean = isRunning,
): Label | undefined =>
  pickOr(
    random,
    [...state.mc.guests].filter(([, each]) => wanted(each) || random.below(40) === 0).map(([label]) => label),
  );

/** The system call that has met poison has not returned, and may meet it again. */
export const isStillCopying = ({ work }: McCpu): boolean => work?.kills === 'never' && work.step === 'recover';

/** The same, but seldom while a system call that has met poison may meet it again: what comes of that takes many commands in a row. */
export const chooseAside: typeof chooseGuest = (random, state, wanted) =>
  [...state.mc.guests.values()].some(({ cpus }) => cpus.some(isStillCopying)) && random.below(16) > 0
    ? undefined
    : chooseGuest(random, state, wanted);

export const isRunning = ({ state }: McGuest): boolean => state === 'running';

/** A frame of the wanted kind, or any if there is none; now and then any all the same. */
export function chooseFrame(random: Random, guest: McGuest, wanted: (page: McPage) => boolean): (typeof GFNS)[number] {
  const found = GFNS.filter((each) => {
    const page = pageAt(guest, each);
    return page !== undefined && wanted(page);
  });
  return found.length === 0 || random.below(10) === 0 ? pick(random, GFNS) : pick(random, found);
}

/** A CPU of the wanted kind, or any. */
export const chooseCpu = (random: Random, guest: McGuest, wanted: (cpu: McCpu) => boolean): (typeof CPUS)[number] =>
  pickOr(
    random,
    CPUS.filter((each) => {
      const found = guest.cpus[Number(each)];
      return found !== undefined && wanted(found);
    }),
  ) ?? pick(random, CPUS);

export const cpuRuns = ({ stage }: McCpu): boolean => stage === 'runs';

/** Whether a page has something bad in it, or had. */
export const isAfflicted = ({ isTaken, isPoisoned, isLost, backing }: McPage): boolean =>
  isTaken ||
  isPoisoned ||
  isLost ||
  backing?.lines.some(({ isBad, cached }) => isBad || cached === 'poisoned') === true;

/** A value that tells stores apart. */
export const chooseValue = (random: Random): bigint => BigInt(1 + random.below(250));
