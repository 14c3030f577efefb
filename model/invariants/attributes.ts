import type { Facts } from '../core/facts.ts';
import { always, hex, type Invariant, type Moment } from './invariant.ts';

/** Whether the frames from `gfn` on are all private, all shared, or some of each. */
function worldOf(facts: Facts, vm: string, gfn: number, count: number): 'private' | 'shared' | 'mixed' {
  const ranges = facts.vms.find((each) => each.vm === vm)?.private ?? [];
  for (const [start, end] of ranges) {
    if (start <= gfn && gfn + count <= end) return 'private';
    if (start < gfn + count && gfn < end) return 'mixed';
  }
  return 'shared';
}

function twoWorlds({ after }: Moment): string | undefined {
  for (const { vm, gfn, count, private: isPrivate } of after.stageTwo) {
    const world = worldOf(after, vm, gfn, count);
    const mapped = isPrivate ? 'private' : 'shared';
    if (world !== mapped) return `gfn ${hex(gfn)} of ${vm} is ${world}, and stage 2 maps it as ${mapped}`;
  }
  return undefined;
}

export const attributeInvariants: readonly Invariant[] = [
  {
    id: 'attributes/one-world',
    sentence:
      'A gfn is private or shared, never both: no stage-2 entry of one kind survives a conversion to the other.',
    source:
      'virt/kvm/kvm_main.c: kvm_vm_set_mem_attributes(); arch/x86/kvm/mmu/mmu.c: kvm_arch_pre_set_memory_attributes()',
    observable: always,
    broken: twoWorlds,
  },
];
