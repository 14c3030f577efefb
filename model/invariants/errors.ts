import _ from 'lodash';
import type { FactPart, StageTwoFact } from '../core/facts.ts';
import { clause, type Clause, type Invariant } from './invariant.ts';

/** Parts that only commands change. */
const LASTING = [
  'vms',
  'private',
  'files',
  'inodes',
  'slots',
  'bindings',
  'resident',
  'poisoned',
  'tdPages',
  'keys',
  'lines',
  'keyUsers',
  'regions',
  'pins',
] as const satisfies readonly FactPart[];

/** Facts come in no particular order. */
const inOrder = (part: readonly unknown[]): readonly string[] => part.map((fact) => JSON.stringify(fact)).sort();

const sameFacts = (a: readonly unknown[], b: readonly unknown[]): boolean =>
  _.isEqual(a, b) || _.isEqual(inOrder(a), inOrder(b));

const unchanged = (part: (typeof LASTING)[number]): Clause =>
  clause([part], ({ before, after, failed }) =>
    failed && before !== undefined && !sameFacts(before[part], after[part])
      ? `the command failed, and these changed: ${part}`
      : undefined,
  );

const isPartOf = (entry: StageTwoFact, old: StageTwoFact): boolean =>
  old.vm === entry.vm &&
  old.private === entry.private &&
  old.gfn <= entry.gfn &&
  entry.gfn + entry.count <= old.gfn + old.count &&
  entry.frame - old.frame === entry.gfn - old.gfn;

/** Entries of stage 2 are a cache: a failed move of a slot drops them, and nobody can tell. None may be added. */
const noneAdded = clause(['stageTwo'], ({ before, after, failed }) => {
  if (!failed || before === undefined) return undefined;
  const added = after.stageTwo.some((entry) => !before.stageTwo.some((old) => isPartOf(entry, old)));
  return added ? 'the command failed, and these changed: stageTwo' : undefined;
});

export const errorInvariants: readonly Invariant[] = [
  {
    id: 'errors/no-effect',
    sentence:
      'A command that fails changes nothing but the partial progress that its rule documents; it may drop cached translations.',
    source: 'virt/kvm/kvm_main.c: kvm_set_memory_region(), kvm_vm_set_mem_attributes()',
    clauses: [...LASTING.map(unchanged), noneAdded],
  },
];
