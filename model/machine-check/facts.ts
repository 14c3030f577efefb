/** What the state says is true of the machine, in the vocabulary of facts. */
import type {
  BackingFact,
  CachedFact,
  FactParts,
  GuestPageFact,
  HostMapFact,
  LineFact,
  McPart,
  StageTwoFact,
} from '../core/facts.ts';
import type { McGuest, McPage } from '../core/machine-check.ts';
import type { Label, State } from '../core/state.ts';
import { isVirtual } from './machine.ts';

type OfMachineCheck = Pick<FactParts, McPart | 'vms' | 'stageTwo' | 'hostMaps' | 'lines' | 'poisoned' | 'absent'>;

interface Placed extends McPage {
  readonly vm: Label;
  readonly gfn: number;
  readonly guest: McGuest;
}

export function machineCheckFacts(state: State): OfMachineCheck {
  const { guests, poisonedFrames, absentFrames, touches, isolations, endings } = state.mc;
  const all = [...guests];
  const running = all.filter(([, guest]) => guest.state === 'running');
  const placed = all.flatMap(([vm, guest]) =>
    guest.pages.flatMap((page, gfn): Placed[] => (page === undefined ? [] : [{ ...page, vm, gfn, guest }])),
  );
  return {
    vms: all.map(([vm]) => ({ vm })),
    guests: all.map(([vm, guest]) => ({
      ...{ vm, state: guest.state, disturbed: guest.isDisturbed },
      ...{ reboots: guest.reboots, replaced: guest.replaced },
    })),
    cpus: running.flatMap(([vm, { cpus }]) =>
      cpus.map(({ stage, work }, cpu) => ({ vm, cpu, stage, work: work?.step ?? 'none', checks: work?.checks ?? 0 })),
    ),
    tasks: running.flatMap(([vm, guest]) => guest.alive.map((alive, task) => ({ vm, task, alive }))),
    guestPages: placed.filter(({ guest }) => guest.state === 'running').map(guestPage),
    backing: placed.map(({ vm, gfn, backing, isTaken }): BackingFact => ({
      vm,
      gfn,
      frame: backing?.frame,
      taken: isTaken,
    })),
    cached: placed.flatMap(cachedLines),
    stageTwo: isVirtual(state) ? placed.flatMap(stageTwo) : [],
    hostMaps: isVirtual(state) ? placed.flatMap(hostMap) : [],
    lines: placed.flatMap(badLines),
    poisoned: isVirtual(state) ? poisonedFrames : placed.flatMap(poisonedByKernel),
    absent: absentFrames.map((frame) => ({ frame, count: 1 })),
    touches,
    isolations,
    endings,
  };
}

const tasksWith = ({ entries }: Placed, wanted: 'present' | 'poison'): readonly number[] =>
  [...entries].filter(([, entry]) => entry === wanted).map(([task]) => Number(task));

const guestPage = (page: Placed): GuestPageFact => ({
  ...{ vm: page.vm, gfn: page.gfn, use: page.use, poisoned: page.isPoisoned, oneToOne: page.oneToOne },
  ...{ shownTo: page.use === 'table' ? [] : tasksWith(page, 'present'), poisonFor: tasksWith(page, 'poison') },
});

const stageTwo = ({ vm, gfn, backing, isTaken, guest }: Placed): readonly StageTwoFact[] =>
  backing === undefined || isTaken
    ? []
    : [{ vm, gfn, frame: backing.frame, count: 1, private: guest.memory === 'gmem' }];

const hostMap = ({ vm, gfn, backing, isTaken, guest }: Placed): readonly HostMapFact[] =>
  backing === undefined || isTaken || guest.memory === 'gmem' ? [] : [{ vm, gfn, frame: backing.frame, by: 'user' }];

const badLines = ({ backing }: Placed): readonly LineFact[] =>
  backing?.lines.flatMap(({ isBad }, line): LineFact[] =>
    isBad ? [{ frame: backing.frame, line, state: 'poisoned' }] : [],
  ) ?? [];

const cachedLines = ({ backing }: Placed): readonly CachedFact[] =>
  backing?.lines.flatMap(({ cached }, line): CachedFact[] =>
    cached === undefined ? [] : [{ frame: backing.frame, line, state: cached }],
  ) ?? [];

const poisonedByKernel = ({ isPoisoned, backing }: Placed): readonly number[] =>
  isPoisoned && backing !== undefined ? [backing.frame] : [];
