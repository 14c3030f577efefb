/** What the state says is true of the TDs of a machine, in the vocabulary of facts. */
import type {
  FactParts,
  HostMapFact,
  KeyFact,
  LineFact,
  PrivateFact,
  StageTwoFact,
  TdPageFact,
  TdPart,
} from '../core/facts.ts';
import type { Label, State, Td, TdFrame } from '../core/state.ts';
import { atHostAddress, isBroken, pageOf } from './lines.ts';
import { has, isOwned, isTdx, KEYS } from './machine.ts';

type OfTd = Pick<FactParts, TdPart | 'vms' | 'private' | 'stageTwo' | 'poisoned'>;

/** The frame of a TD with where it is. */
interface Placed extends TdFrame {
  readonly vm: Label;
  readonly gfn: number;
  readonly td: Td;
}

export function tdFacts(state: State): OfTd {
  const { tds, poisonedFrames, hostWrites, consumptions } = state.td;
  const frames = [...tds].flatMap(([vm, td]) => td.frames.map((frame, gfn): Placed => ({ ...frame, vm, gfn, td })));
  return {
    vms: Array.from(tds.keys(), (vm) => ({ vm })),
    private: frames
      .filter((frame) => frame.private)
      .map(({ vm, gfn }): PrivateFact => ({ vm, start: gfn, end: gfn + 1 })),
    stageTwo: isTdx(state) ? frames.filter(isMappedByModule).map(stageTwo) : [],
    poisoned: poisonedFrames,
    tdPages: frames.filter(isOwned).map(tdPage),
    lines: isTdx(state) ? frames.filter(isOwned).flatMap(brokenLines) : [],
    keys: has(state, 'ultravisor') ? [] : KEYS.map((key) => keyFact(state, key)),
    hostMaps: frames.flatMap((frame) => hostMaps(state, frame)),
    hostWrites,
    consumptions,
  };
}

/** A TD that had a machine check is never entered again, so that its entries show nothing to anyone. */
const isMappedByModule = ({ entry, td }: Placed): boolean =>
  (entry === 'mapped' || entry === 'pending') && td.ended !== 'machine-check';

const stageTwo = ({ vm, gfn, page: { frame } }: Placed): StageTwoFact => ({ vm, gfn, frame, count: 1, private: true });

const tdPage = ({ vm, gfn, page: { frame }, td, entry, exported }: Placed): TdPageFact => ({
  ...{ vm, gfn, frame },
  key: td.key ?? 0,
  state: exported !== 'no' ? 'exported' : entry === 'none' ? 'mapped' : entry,
});

const brokenLines = ({ page: { frame, lines } }: Placed): readonly LineFact[] =>
  lines.flatMap((each, line) =>
    isBroken(each) ? [{ frame, line, state: each.poisoned ? ('poisoned' as const) : ('foreign' as const) }] : [],
  );

function keyFact({ td: { tds, leakedKeys } }: State, key: number): KeyFact {
  const leaked = leakedKeys.get(key);
  if (leaked !== undefined) return { key, state: 'leaked', vm: leaked, flushed: false };
  const [owner] = [...tds].filter(([, each]) => each.key === key);
  if (owner === undefined) return { key, state: 'free', flushed: true };
  const [vm, { flush }] = owner;
  return { key, state: 'assigned', vm, flushed: flush === 'caches' };
}

/** Whether user space has an entry of the page at the host address, as soon as it has touched it. */
function isShown(state: State, frame: TdFrame): boolean {
  if (frame.isSwapped) return false;
  if (has(state, 'poison-entries')) return !frame.private;
  return has(state, 'explicit-maps') ? frame.isMapped && !frame.private : true;
}

function hostMaps(state: State, placed: Placed): readonly HostMapFact[] {
  const { vm, gfn, isPinned } = placed;
  const { frame } = pageOf(placed, atHostAddress(placed));
  const byUser: readonly HostMapFact[] = isShown(state, placed) ? [{ vm, gfn, frame, by: 'user' }] : [];
  return isPinned ? [...byUser, { vm, gfn, frame, by: 'dma' }] : byUser;
}
