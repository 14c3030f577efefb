/** Guests, their CPUs and frames, and the host: looking things up, and the state with one thing changed. */
import type {
  EndingEvent,
  McCpu,
  McFrame,
  McGuest,
  McLine,
  McMachine,
  McPage,
  McTouch,
  McWork,
} from '../core/machine-check.ts';
import type { Feature } from '../core/profile.ts';
import { known, withEntry, type Label, type State } from '../core/state.ts';

export const GFNS = ['0', '1', '2', '3'] as const;
export const LINES = ['0', '1'] as const;
export const CPUS = ['0', '1'] as const;

export const has = ({ config: { profile } }: State, feature: Feature): boolean => profile.features.includes(feature);
export const isVirtual = (state: State): boolean => has(state, 'virtual');

export const guestOf = (state: State, label: Label): McGuest => known(state.mc.guests, label);
export const pageAt = (guest: McGuest, gfn: string): McPage | undefined => guest.pages[Number(gfn)];

/** The page of a guest frame that an earlier row has shown to be plugged. */
export function pageOf(state: State, label: Label, gfn: string): McPage {
  const page = pageAt(guestOf(state, label), gfn);
  if (page === undefined) throw new Error(`specification defect: guest frame '${gfn}' is not plugged`);
  return page;
}

export function cpuOf(state: State, label: Label, cpu: string): McCpu {
  const found = guestOf(state, label).cpus[Number(cpu)];
  if (found === undefined) throw new Error(`specification defect: no CPU '${cpu}'`);
  return found;
}

const NO_EVENTS = { touches: [], isolations: [], endings: [] } as const;
type Events = Partial<Pick<McMachine, keyof typeof NO_EVENTS>>;

/** The state with another machine, in which nothing but the given events has happened since the last command. */
export const withMachine = (state: State, change: Partial<McMachine>): State => ({
  ...state,
  mc: { ...state.mc, ...NO_EVENTS, ...change },
});

export const withGuest = (state: State, label: Label, change: Partial<McGuest>, events: Events = {}): State =>
  withMachine(state, {
    guests: withEntry(state.mc.guests, label, { ...guestOf(state, label), ...change }),
    ...events,
  });

const replaced = <T>(list: readonly T[], index: string, value: T): readonly T[] =>
  list.map((each, at) => (at === Number(index) ? value : each));

export const withPage = (
  state: State,
  label: Label,
  gfn: string,
  change: Partial<McPage>,
  rest: Partial<McGuest> = {},
): State => {
  const { pages } = guestOf(state, label);
  return withGuest(state, label, { pages: replaced(pages, gfn, { ...pageOf(state, label, gfn), ...change }), ...rest });
};

export const withCpu = (
  state: State,
  label: Label,
  cpu: string,
  change: Partial<McCpu>,
  events: Events = {},
): State => {
  const { cpus } = guestOf(state, label);
  return withGuest(state, label, { cpus: replaced(cpus, cpu, { ...cpuOf(state, label, cpu), ...change }) }, events);
};

/** The state with events added to those of the command that is being described. */
export const withEvents = (state: State, events: Events): State => ({ ...state, mc: { ...state.mc, ...events } });

export const RUNS = { stage: 'runs', touch: undefined } as const satisfies Partial<McCpu>;

export const FRESH_CPU: McCpu = {
  ...RUNS,
  banks: [undefined, undefined],
  isGloballyEnabled: true,
  isBankEnabled: [true, true],
  takesExceptions: true,
  inProgress: false,
  hasErrorIp: false,
  work: undefined,
};

const ZERO: McLine = { value: 0n, isBad: false, cached: undefined };

export const newFrame = (frame: number): McFrame => ({ frame, lines: LINES.map(() => ZERO) });

export const newPage = (frame: number): McPage => ({
  ...{ backing: newFrame(frame), isTaken: false, detached: undefined },
  ...UNUSED,
});

/** What a kernel that has just booted, or put the frame online, knows of it. */
export const UNUSED = {
  use: 'free',
  entries: new Map(),
  isPoisoned: false,
  oneToOne: 'present',
  isLost: false,
} as const satisfies Partial<McPage>;

/** Nothing of what a kernel did is left: neither of its tasks nor of what it was told. */
export const BOOTED = {
  cpus: CPUS.map(() => FRESH_CPU),
  alive: CPUS.map(() => true),
  worker: [],
  told: [],
  hadFailure: false,
  state: 'running',
} as const satisfies Partial<McGuest>;

export const lineOf = (page: McPage, line: string): McLine | undefined => page.backing?.lines[Number(line)];

/** Whether a load of the line gets poison. */
export const isPoison = ({ isBad, cached }: McLine): boolean => (cached === undefined ? isBad : cached === 'poisoned');

/** The line with the word stored: in a cache, if one has it, or else in memory. Poison stays what it is. */
export const storedTo = (line: McLine, value: bigint): McLine => ({
  ...line,
  value,
  cached: line.cached === 'clean' ? 'dirty' : line.cached,
});

export const withLine = (frame: McFrame, line: string, change: Partial<McLine>): McFrame => ({
  ...frame,
  lines: frame.lines.map((each, at) => (at === Number(line) ? { ...each, ...change } : each)),
});

/** Pages that are the kernel’s own: nothing can be done about them when they fail. */
export const isOwnOfKernel = ({ use, isLost }: McPage): boolean => use === 'kernel' || use === 'table' || isLost;

/** Of the entries of page tables, those that tell of poison: they outlast the use of the page, and the poison. */
export const poisonEntries = ({ entries }: McPage): McPage['entries'] =>
  new Map([...entries].filter(([, entry]) => entry === 'poison'));

/** What becomes of a page that nobody has any more. */
export const freed = (page: McPage): Partial<McPage> => ({
  ...{ use: 'free', entries: poisonEntries(page) },
  isLost: page.isLost || (page.isPoisoned && isOwnOfKernel(page)),
});

/** What a task has no more: its page table is gone, and memory that nobody else has is free. */
function without(page: McPage, task: string): McPage {
  const entry = page.entries.get(task);
  if (entry === undefined) return page;
  const left = { ...page, entries: new Map([...page.entries].filter(([each]) => each !== task)) };
  const isFreed = entry === 'present' && ![...left.entries.values()].includes('present');
  return isFreed ? { ...left, ...freed(left) } : left;
}

/** The state with a task killed. */
export function withoutTask(state: State, label: Label, task: string, why: EndingEvent): State {
  const { alive, pages } = guestOf(state, label);
  return withGuest(
    state,
    label,
    { alive: replaced(alive, task, false), pages: pages.map((page) => page && without(page, task)) },
    { endings: [why], touches: state.mc.touches, isolations: state.mc.isolations },
  );
}

/** The state with a guest that came to its end. What its CPUs were at is gone, but what their threads owe the host is not. */
export const withEnded = (state: State, label: Label, how: McGuest['state'], why: EndingEvent): State => {
  const cpus = guestOf(state, label).cpus.map(({ stage, touch }) =>
    stage === 'host-work' ? { ...FRESH_CPU, stage, touch } : FRESH_CPU,
  );
  return withGuest(state, label, { ...BOOTED, cpus, state: how }, { endings: [why] });
};

export const endedBy = (vm: Label, by: EndingEvent['by'], touch: McTouch | undefined, task?: string): EndingEvent => ({
  ...{ vm, by, task: task === undefined ? undefined : Number(task) },
  ...{ of: touch && Number(touch.gfn), how: touch?.how },
});

/** Frames of a guest whose VMM is gone. */
export const withoutMemory = { pages: GFNS.map(() => undefined), cpus: BOOTED.cpus, worker: [], told: [] } as const;

/** What is left to do, for a CPU or for the worker. */
export const workOf = (state: State, label: Label, by: string): McWork | undefined =>
  by === 'worker' ? guestOf(state, label).worker[0] : cpuOf(state, label, by).work;

/** The CPU that a step runs on. */
export const cpuFor = (by: string): string => (by === 'worker' ? '0' : by);

/** The state with the oldest work replaced, or done where there is none left. */
export const withWork = (state: State, label: Label, by: string, work: McWork | undefined): State => {
  if (by !== 'worker') return withCpu(state, label, by, { work });
  const rest = guestOf(state, label).worker.slice(1);
  return withGuest(state, label, { worker: work === undefined ? rest : [work, ...rest] });
};
