import _ from 'lodash';
import type { Facts } from '../core/facts.ts';
import { always, type Invariant, type Moment } from './invariant.ts';

/** Parts that only commands change. */
const LASTING = ['vms', 'files', 'inodes', 'slots', 'bindings', 'resident', 'poisoned'] as const;

/** Facts come in no particular order. */
const inOrder = (part: readonly unknown[]): readonly string[] => part.map((fact) => JSON.stringify(fact)).sort();

const sameFacts = (a: readonly unknown[], b: readonly unknown[]): boolean =>
  a === b || _.isEqual(a, b) || _.isEqual(inOrder(a), inOrder(b));

/** Entries of stage 2 are a cache: a failed move of a slot drops them, and nobody can tell. None may be added. */
function addedStageTwo({ before, after }: { readonly before: Facts; readonly after: Facts }): boolean {
  if (before.stageTwo === after.stageTwo) return false;
  return after.stageTwo.some(
    (entry) =>
      !before.stageTwo.some(
        (old) =>
          old.vm === entry.vm &&
          old.private === entry.private &&
          old.gfn <= entry.gfn &&
          entry.gfn + entry.count <= old.gfn + old.count &&
          entry.frame - old.frame === entry.gfn - old.gfn,
      ),
  );
}

function effect({ before, after, failed }: Moment): string | undefined {
  if (!failed || before === undefined) return undefined;
  const changed: string[] = LASTING.filter((part) => !sameFacts(before[part], after[part]));
  if (addedStageTwo({ before, after })) changed.push('stageTwo');
  return changed.length === 0 ? undefined : `the command failed, and these changed: ${changed.join(', ')}`;
}

export const errorInvariants: readonly Invariant[] = [
  {
    id: 'errors/no-effect',
    sentence:
      'A command that fails changes nothing but the partial progress that its rule documents; it may drop cached translations.',
    source: 'virt/kvm/kvm_main.c: kvm_set_memory_region(), kvm_vm_set_mem_attributes()',
    observable: always,
    broken: effect,
  },
];
