/** What the specification's own state says is true, in the vocabulary of facts. */
import type {
  BindingFact,
  Facts,
  FileFact,
  InodeFact,
  ResidentFact,
  SlotFact,
  StageTwoFact,
  UserMappingFact,
  VmFact,
} from './core/facts.ts';
import type { Label, State } from './core/state.ts';
import { bindingsOf } from './gmem/lifecycle.ts';

/**
 * The specification has no page frames: it gives the pages of each inode frames of their own, so far apart that no two
 * inodes of a program meet.
 */
function frameBases(state: State): ReadonlyMap<Label, number> {
  const bases = new Map<Label, number>();
  let next = 0;
  for (const [label, inode] of state.inodes) {
    bases.set(label, next);
    next += inode.pages;
  }
  return bases;
}

export function factsOfState(state: State): Facts {
  const vms: VmFact[] = [];
  const files: FileFact[] = [];
  const inodes: InodeFact[] = [];
  const slots: SlotFact[] = [];
  const bindings: BindingFact[] = [];
  const resident: ResidentFact[] = [];
  const stageTwo: StageTwoFact[] = [];
  const poisoned: number[] = [];
  const bases = frameBases(state);
  const frameOf = (inode: Label, page: number): number => (bases.get(inode) ?? 0) + page;
  for (const [vm, { private: isPrivate, slots: slotTable, stageTwo: entries }] of state.vms) {
    vms.push({ vm, private: isPrivate.map(({ start, end }) => [start, end] as const) });
    for (const { id: slot, baseGfn, pages, gmem } of slotTable.values())
      slots.push({
        vm,
        slot,
        baseGfn,
        pages,
        gmem: gmem !== undefined,
        file: gmem?.file,
        firstPage: gmem?.firstPage ?? 0,
      });
    for (const { start, end, value } of entries)
      stageTwo.push({
        vm,
        gfn: start,
        frame: frameOf(value.inode, start + value.delta),
        count: end - start,
        private: value.private,
      });
  }
  for (const [file, { vm, inode }] of state.files) {
    files.push({ file, vm, inode });
    for (const { start, end, slot } of bindingsOf(state, file))
      bindings.push({ file, start, end, vm, slot: slot.id, live: true });
  }
  for (const [inode, { pages, resident: runs, poisoned: bad }] of state.inodes) {
    inodes.push({ inode, pages });
    for (const { start, end } of runs)
      resident.push({ inode, page: start, frame: frameOf(inode, start), count: end - start });
    for (const { start, end } of bad) for (let page = start; page < end; page++) poisoned.push(frameOf(inode, page));
  }
  return { vms, files, inodes, slots, bindings, resident, stageTwo, user: userMappings(state, frameOf), poisoned };
}

function userMappings(state: State, frameOf: (inode: Label, page: number) => number): UserMappingFact[] {
  const user: UserMappingFact[] = [];
  for (const [mapping, { inode, firstPage, touched }] of state.mappings)
    for (const { start, end } of touched)
      user.push({ mapping, page: start, frame: frameOf(inode, firstPage + start), count: end - start });
  return user;
}
