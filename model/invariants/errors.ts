import _ from 'lodash';
import type { Facts } from '../core/facts.ts';
import { always, type Invariant, type Moment } from './invariant.ts';

/** Parts of the facts that tell of the last command only, or that any allocation may move. */
type Lasting = Omit<Facts, 'firstTouches' | 'outOfBounds' | 'free' | 'orphans'>;

const LASTING = ['vms', 'files', 'inodes', 'slots', 'bindings', 'resident', 'stageTwo', 'user', 'poisoned'] as const satisfies (keyof Lasting)[];

function effect({ before, after, failed }: Moment): string | undefined {
  if (!failed || before === undefined || before === after) return undefined;
  const changed = LASTING.filter((part) => before[part] !== after[part] && !_.isEqual(before[part], after[part]));
  return changed.length === 0 ? undefined : `the command failed, and these changed: ${changed.join(', ')}`;
}

export const errorInvariants: readonly Invariant[] = [
  {
    id: 'errors/no-effect',
    sentence: 'A command that fails changes nothing but the partial progress that its rule documents.',
    source: 'virt/kvm/kvm_main.c: kvm_set_memory_region(), kvm_vm_set_mem_attributes()',
    observable: always,
    broken: effect,
  },
];
