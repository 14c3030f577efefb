/** What the state says is true of SEV guests and their keys, in the vocabulary of facts. */
import { holdsIn } from '../core/profile.ts';
import type { Facts, KeyFact, PinFact } from '../core/facts.ts';
import type { State } from '../core/state.ts';
import { ASIDS, ownerOf } from './key-machine.ts';

export function keyFacts(state: State): Facts {
  const { vms } = state.sev;
  return {
    vms: Array.from(vms.keys(), (vm) => ({ vm })),
    keys: ASIDS.map((key) => keyFact(state, key)),
    keyUsers: [...vms].flatMap(([vm, { asid, owner }]) => (asid === undefined ? [] : [{ vm, key: asid, owner }])),
    regions: [...vms].flatMap(([vm, { regions }]) => regions.map(({ start, end }) => ({ vm, start, end }))),
    pins: pins(state),
    ...(holdsIn(state.config.profile, { feature: 'gmem-link' }) && fileFacts(state)),
  };
}

/** An ASID that was given back may have lines in caches, of which the specification knows nothing. */
function keyFact(state: State, key: number): KeyFact {
  const leaked = state.sev.leaked.get(key);
  if (leaked !== undefined) return { key, state: 'leaked', vm: leaked, flushed: false };
  if (state.sev.reclaim.has(key)) return { key, state: 'reclaim', flushed: false };
  const vm = ownerOf(state, key);
  return vm === undefined ? { key, state: 'free', flushed: true } : { key, state: 'assigned', vm, flushed: true };
}

function pins({ sev }: State): readonly PinFact[] {
  const counts = new Map<number, number>();
  for (const { regions } of sev.vms.values())
    for (const { start, end } of regions)
      for (let page = start; page < end; page++) counts.set(page, (counts.get(page) ?? 0) + 1);
  return Array.from(counts, ([page, count]) => ({ page, count }));
}

function fileFacts({ sev }: State): Facts {
  const inodes = new Set([...sev.files.values()].map(({ inode }) => inode));
  return {
    files: Array.from(sev.files, ([file, { vm, inode }]) => ({ file, vm, inode })),
    inodes: Array.from(inodes, (inode) => ({ inode, pages: 1 })),
    slots: [...sev.vms].flatMap(([vm, { slots }]) =>
      Array.from(slots, ([gfn, file]) => ({
        ...{ vm, slot: Number(gfn), baseGfn: Number(gfn), pages: 1 },
        ...{ gmem: true, file, firstPage: 0 },
      })),
    ),
  };
}
