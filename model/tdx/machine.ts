/** TDs, their frames and the machine that runs them: looking things up, and the state with one thing changed. */
import type { Feature } from '../core/profile.ts';
import {
  FRESH_TD_MACHINE,
  known,
  withEntry,
  type ConsumptionEvent,
  type HostWriteEvent,
  type Label,
  type Line,
  type State,
  type Td,
  type TdFrame,
  type TdMachine,
  type TdPage,
  type TdVcpu,
} from '../core/state.ts';

export const GFNS = ['0', '1', '2', '3'] as const;
export type Gfn = (typeof GFNS)[number];
export const LINES = ['0', '1'] as const;
export const VCPUS = ['0', '1'] as const;
/** Keys that a guest may have for itself. */
export const KEYS: readonly number[] = [1, 2];

export const has = ({ config: { profile } }: State, feature: Feature): boolean => profile.features.includes(feature);
export const isTdx = (state: State): boolean => has(state, 'tdx');

export const tdOf = (state: State, label: Label): Td => known(state.td.tds, label);

export function frameOf(state: State, label: Label, gfn: string): TdFrame {
  const frame = tdOf(state, label).frames[Number(gfn)];
  if (frame === undefined) throw new Error(`specification defect: no guest frame '${gfn}'`);
  return frame;
}

export const vcpuOf = (state: State, label: Label, vcpu: string): TdVcpu | undefined =>
  tdOf(state, label).vcpus.get(vcpu);

interface Events {
  readonly hostWrites?: readonly HostWriteEvent[];
  readonly consumptions?: readonly ConsumptionEvent[];
}

const NO_EVENTS = { hostWrites: [], consumptions: [] } as const;

/** The state with another machine, in which nothing but the given events has happened since the last command. */
export const withMachine = (state: State, change: Partial<TdMachine>): State => ({
  ...state,
  td: { ...state.td, ...NO_EVENTS, ...change },
});

export const withTd = (state: State, label: Label, change: Partial<Td>, events: Events = {}): State =>
  withMachine(state, { tds: withEntry(state.td.tds, label, { ...tdOf(state, label), ...change }), ...events });

export const withFrame = (
  state: State,
  label: Label,
  gfn: string,
  change: Partial<TdFrame>,
  events: Events = {},
): State => {
  const { frames } = tdOf(state, label);
  const changed = frames.map((frame, index) => (index === Number(gfn) ? { ...frame, ...change } : frame));
  return withTd(state, label, { frames: changed }, events);
};

export const withVcpu = (state: State, label: Label, vcpu: string, change: Partial<TdVcpu>): State => {
  const { vcpus } = tdOf(state, label);
  const before = vcpus.get(vcpu) ?? { isInitialized: false, isAssociated: false };
  return withTd(state, label, { vcpus: withEntry(vcpus, vcpu, { ...before, ...change }) });
};

/** The machine went down because of what happened, and was started again. */
export const restarted = (state: State, events: Events = {}): State => ({
  ...state,
  td: { ...FRESH_TD_MACHINE, ...events },
});

/** Private keys that nobody has. */
export function freeKeys({ td: { tds, leakedKeys } }: State): readonly number[] {
  const taken = new Set([...tds.values()].map(({ key }) => key));
  return KEYS.filter((key) => !taken.has(key) && !leakedKeys.has(key));
}

export const ZERO_LINE: Line = { value: 0n, under: 'host', poisoned: false };

export const guestLine = (value: bigint): Line => ({ value, under: 'guest', poisoned: false });

export const filledWith = (page: TdPage, line: Line): TdPage => ({ ...page, lines: LINES.map(() => line) });

/** A page that was written over with zeros, as a page is that a TD gave back. */
export const reset = (page: TdPage): TdPage => filledWith(page, ZERO_LINE);

/** Whether the frame had a machine check, so that the host knows it to be poisoned. */
export const isMarked = ({ td }: State, { page }: TdFrame): boolean => td.poisonedFrames.includes(page.frame);

/** Whether the page of the frame belongs to the TD, or has something of the guest in it. */
export const isOwned = ({ entry }: TdFrame): boolean => entry !== 'none';

/** The frame as it is when nothing of the guest is in its page any more. */
export const REMOVED = { entry: 'none', tracked: false, exported: 'no' } as const satisfies Partial<TdFrame>;

/** Until the key is free: writing back does not change what the module knows of a key but that it is done. */
export const isToWriteBack = ({ flush, key }: Td): boolean => flush !== 'none' && key !== undefined;

/** TDH.PHYMEM.CACHE.WB: caches are written back for every key whose TD is flushed. */
export const writtenBack = (tds: ReadonlyMap<Label, Td>): ReadonlyMap<Label, Td> =>
  new Map([...tds].map(([label, td]): [Label, Td] => [label, isToWriteBack(td) ? { ...td, flush: 'caches' } : td]));

/** TDH.MEM.TRACK, and every vCPU out of the guest: whatever is blocked by now can be removed. */
export const withTracked = (state: State, label: Label): State =>
  withTd(state, label, {
    frames: tdOf(state, label).frames.map((each) => ({ ...each, tracked: each.entry === 'blocked' })),
  });
