import type { PrivateFact, StageTwoFact } from '../core/facts.ts';
import { clause, hex, type Invariant } from './invariant.ts';

/** Whether the frames of the entry are all private, all shared, or some of each. */
function worldOf(
  ranges: readonly PrivateFact[],
  { vm, gfn, count }: Pick<StageTwoFact, 'vm' | 'gfn' | 'count'>,
): 'private' | 'shared' | 'mixed' {
  for (const { vm: owner, start, end } of ranges) {
    if (owner !== vm) continue;
    if (start <= gfn && gfn + count <= end) return 'private';
    if (start < gfn + count && gfn < end) return 'mixed';
  }
  return 'shared';
}

/** A page that belongs to a TD, at a frame that the guest shares. */
const ownedAndShared = clause(['tdPages', 'private'], ({ after }) => {
  const wrong = after.tdPages.find(({ vm, gfn }) => worldOf(after.private, { vm, gfn, count: 1 }) !== 'private');
  return wrong && `gfn ${hex(wrong.gfn)} of ${wrong.vm} is shared, and its page belongs to the TD`;
});

const twoWorlds = clause(['stageTwo', 'private'], ({ after }) => {
  for (const entry of after.stageTwo) {
    const world = worldOf(after.private, entry);
    const mapped = entry.private ? 'private' : 'shared';
    if (world !== mapped) return `gfn ${hex(entry.gfn)} of ${entry.vm} is ${world}, and stage 2 maps it as ${mapped}`;
  }
  return undefined;
});

export const attributeInvariants: readonly Invariant[] = [
  {
    id: 'attributes/one-world',
    sentence:
      'A gfn is private or shared, never both: no stage-2 entry of one kind survives a conversion to the other.',
    source:
      'virt/kvm/kvm_main.c: kvm_vm_set_mem_attributes(); arch/x86/kvm/mmu/mmu.c: kvm_arch_pre_set_memory_attributes()',
    clauses: [twoWorlds, ownedAndShared],
  },
];
