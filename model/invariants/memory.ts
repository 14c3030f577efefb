import type { Facts, ResidentFact, UserMappingFact } from '../core/facts.ts';
import { always, hex, type Invariant, type Moment } from './invariant.ts';

/** Runs of frames that hold pages, in rising order of frames, for lookups by frame. */
function residentAt(resident: readonly ResidentFact[], frame: number): ResidentFact | undefined {
  return resident.find((run) => frame >= run.frame && frame < run.frame + run.count);
}

/** The first frame of the run that holds no page of any inode. */
function uncovered(resident: readonly ResidentFact[], frame: number, count: number): number | undefined {
  let next = frame;
  while (next < frame + count) {
    const run = residentAt(resident, next);
    if (run === undefined) return next;
    next = run.frame + run.count;
  }
  return undefined;
}

/** The page that a guest frame should show now, where the facts tell: the binding of its slot. */
function wrongPage(facts: Facts, vm: string, gfn: number, frame: number, isPrivate: boolean): string | undefined {
  const slot = facts.slots.find(
    (each) => each.vm === vm && gfn >= each.baseGfn && gfn < each.baseGfn + each.pages && each.slot <= 0xffff,
  );
  if (slot === undefined) return `gfn ${hex(gfn)} of ${vm} is mapped, and no slot shows it`;
  if (!isPrivate) return undefined;
  const inode = facts.files.find((each) => each.file === slot.file)?.inode;
  const run = residentAt(facts.resident, frame);
  if (inode === undefined || run === undefined) return `gfn ${hex(gfn)} of ${vm} is mapped, and its slot has no file`;
  const page = run.page + frame - run.frame;
  if (run.inode !== inode || page !== gfn - slot.baseGfn + slot.firstPage)
    return `gfn ${hex(gfn)} of ${vm} shows page ${hex(page)} of ${run.inode}, not the page that its slot is bound to`;
  return undefined;
}

function staleMapping({ after }: Moment): string | undefined {
  for (const { vm, gfn, frame, count, private: isPrivate } of after.stageTwo) {
    const gone = uncovered(after.resident, frame, count);
    if (gone !== undefined)
      return `gfn ${hex(gfn + gone - frame)} of ${vm} shows frame ${hex(gone)}, which was freed or given to another owner`;
    const wrong =
      wrongPage(after, vm, gfn, frame, isPrivate) ??
      wrongPage(after, vm, gfn + count - 1, frame + count - 1, isPrivate);
    if (wrong !== undefined) return wrong;
  }
  for (const { mapping, page, frame, count } of after.user) {
    const gone = uncovered(after.resident, frame, count);
    if (gone !== undefined)
      return `page ${hex(page + gone - frame)} of ${mapping} shows frame ${hex(gone)}, which was freed or given to another owner`;
  }
  return undefined;
}

function spoiltFree({ after }: Moment): string | undefined {
  for (const { frame, count } of after.free ?? []) {
    const bad = after.poisoned.find((each) => each >= frame && each < frame + count);
    if (bad !== undefined) return `frame ${hex(bad)} is on the free list although it is poisoned`;
    const used = after.resident.find((run) => run.frame < frame + count && frame < run.frame + run.count);
    if (used !== undefined)
      return `frame ${hex(Math.max(used.frame, frame))} is on the free list although it holds a page`;
  }
  return undefined;
}

function notFresh({ after }: Moment): string | undefined {
  const dirty = after.firstTouches?.find(({ zero }) => !zero);
  return dirty && `page ${hex(dirty.page)} of ${dirty.inode} was shown for the first time with something in it`;
}

function unbalanced({ after }: Moment): string | undefined {
  const [orphan] = after.orphans ?? [];
  if (orphan !== undefined)
    return `frame ${hex(orphan.frame)} holds no page and is not free: ${orphan.references} references are left`;
  for (const { inode, page, frame, count, references } of after.resident) {
    if (references === undefined) continue;
    for (const at of edgesWithin(after.user, frame, count)) {
      const mapped = after.user.filter((each) => at >= each.frame && at < each.frame + each.count).length;
      if (references !== 1 + mapped)
        return `page ${hex(page + at - frame)} of ${inode} has ${references} references; its file and ${mapped} mappings explain ${1 + mapped}`;
    }
  }
  return undefined;
}

/** Frames of a run at which the number of mappings may change. */
function edgesWithin(user: readonly UserMappingFact[], frame: number, count: number): readonly number[] {
  const edges = [frame];
  for (const each of user)
    for (const edge of [each.frame, each.frame + each.count])
      if (edge > frame && edge < frame + count) edges.push(edge);
  return edges;
}

function remapped({ after }: Moment): string | undefined {
  if (after.poisoned.length === 0) return undefined;
  const inRun = (frame: number, count: number): number | undefined =>
    after.poisoned.find((bad) => bad >= frame && bad < frame + count);
  for (const { vm, gfn, frame, count } of after.stageTwo) {
    const bad = inRun(frame, count);
    if (bad !== undefined) return `gfn ${hex(gfn + bad - frame)} of ${vm} shows the poisoned frame ${hex(bad)}`;
  }
  for (const { mapping, page, frame, count } of after.user) {
    const bad = inRun(frame, count);
    if (bad !== undefined) return `page ${hex(page + bad - frame)} of ${mapping} shows the poisoned frame ${hex(bad)}`;
  }
  return undefined;
}

export const memoryInvariants: readonly Invariant[] = [
  {
    id: 'memory/no-stale-mapping',
    sentence:
      'No stage-2 entry or user mapping points at a page that was freed or given to another owner, or at another page than the slot is bound to.',
    source: 'virt/kvm/guest_memfd.c: kvm_gmem_invalidate_start()',
    observable: always,
    broken: staleMapping,
  },
  {
    id: 'memory/free-is-present',
    sentence: 'A page on the free list is unpoisoned and holds nothing.',
    source: 'mm/page_alloc.c: free_pages_prepare()',
    observable: ({ free }) => free !== undefined,
    broken: spoiltFree,
  },
  {
    id: 'memory/fresh-is-zero',
    sentence:
      'A page that a guest or the host gets for the first time reads as zero: nothing of an earlier owner shows.',
    source: 'virt/kvm/guest_memfd.c: kvm_gmem_get_pfn(), kvm_gmem_fault_user_mapping()',
    observable: ({ firstTouches }) => firstTouches !== undefined,
    broken: notFresh,
  },
  {
    id: 'memory/references-balanced',
    sentence: 'At rest, the page cache and the user mappings explain every reference to a page, also after errors.',
    source: 'virt/kvm/guest_memfd.c: kvm_gmem_get_pfn(), folio_put() on each path',
    observable: ({ orphans }) => orphans !== undefined,
    broken: unbalanced,
  },
  {
    id: 'memory/in-bounds',
    sentence: 'No table is read or written outside of what it was made for.',
    source: 'CVE-2024-26991; arch/x86/kvm/mmu/mmu.c: kvm_arch_post_set_memory_attributes()',
    observable: always,
    broken: ({ after }) => after.outOfBounds?.[0],
  },
  {
    id: 'poison/never-remapped',
    sentence: 'Once a page is known poisoned, no mapping of it is created again, in stage 2 or in user space.',
    source: 'virt/kvm/guest_memfd.c: kvm_gmem_error_folio(), __kvm_gmem_get_pfn()',
    observable: always,
    broken: remapped,
  },
];
