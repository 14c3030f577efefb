/**
 * Wrong implementations made from the rule table: the specification with one row left out, with two neighbouring rows
 * in the wrong order, or with the rules of another profile. They show whether the generator reaches every row and
 * whether the oracle notices; they say nothing about whether the rules themselves are true.
 */
import _ from 'lodash';
import { CATALOGUE } from '../../model/catalogue.ts';
import {
  DEFAULT_PROFILE,
  FULL_MACHINE,
  holdsIn,
  isPartOf,
  profileById,
  PROFILES,
  type Profile,
} from '../../model/core/profile.ts';
import { Specification, type AnyTransition } from '../../model/core/specification.ts';
import { answerOf, type Args, type Guard } from '../../model/core/transition.ts';
import { specificationTarget } from '../reference/reference.ts';
import type { Mutant } from './mutant.ts';

const withRows = (transition: AnyTransition, guards: readonly Guard<Args>[]): readonly AnyTransition[] =>
  CATALOGUE.map((each) => (each.name === transition.name ? { ...transition, guards } : each));

const isDecided = (guard: Guard<Args>): boolean =>
  !('unmodelled' in guard) && guard.unreachable?.(FULL_MACHINE) === undefined;

const BY_PREFERENCE = _.sortBy(PROFILES, ({ id }) => id !== DEFAULT_PROFILE);

/** The profile in which a row is to be tried. */
const profileFor = (transition: AnyTransition, guard: Guard<Args>): Profile =>
  BY_PREFERENCE.find((profile) => isPartOf(transition, profile) && holdsIn(profile, guard.only)) as Profile;

const SAME_VM = 'a VM is an SEV guest, or it is none: with itself one of the two is wrong, to the same error';

const NOTHING_LEFT = 'without a VMM, a kernel that has ended leaves no CPU busy, and no task killed';

/** Mutants that no program can tell from the specification, and why. */
const EQUIVALENT: ReadonlyMap<string, string> = new Map([
  ['swap:page.alloc/ended:no-task', NOTHING_LEFT],
  ['swap:task.touch/ended:no-task', NOTHING_LEFT],
  ['swap:kernel.touch/ended:busy', NOTHING_LEFT],
  ['swap:kernel.recover/ended:busy', NOTHING_LEFT],
  ['swap:page.unpoison/ended:hardware-failure', 'what a kernel knew of failures is gone when it has ended'],
  ['swap:kernel.isolate/ended:busy', NOTHING_LEFT],
  ['swap:vmm.answer/ignored:triple-fault', 'a machine check that is ignored is not raised'],
  ['swap:kernel.handle/nothing-raised:in-kernel', 'a kernel panics of what its handler is told'],
  [
    'swap:task.touch/no-page:copy-of-poison',
    'a task that has a poison entry for a frame has it for any way but a walk',
  ],
  ['swap:guest.store/poisoned:read-only', 'a slot of guest memory is never read-only, so both cannot hold'],
  ['drop:sev.copy/same-vm', SAME_VM],
  ['drop:sev.move/same-vm', SAME_VM],
  ['drop:sev.init/mirror', 'a mirror is an SEV guest already, which is the same error'],
  ['drop:sev.region-drop/mirror', 'a mirror has no regions, so that the same error comes of not finding one'],
]);

/** Of rows that are written once for each release, the first that is met is as good as the others. */
function derivedFrom(transition: AnyTransition): Mutant[] {
  const mutants = BY_PREFERENCE.flatMap((profile) => {
    const guards = transition.guards.filter((guard) => profileFor(transition, guard) === profile);
    return derivedIn(profile, transition, guards);
  });
  return _.uniqBy(mutants, 'id');
}

/** Each of the guards left out, and each that may change places with the next row of the profile. */
function derivedIn(profile: Profile, transition: AnyTransition, guards: readonly Guard<Args>[]): Mutant[] {
  const mutant = (id: string, fault: string, rows: readonly Guard<Args>[]): Mutant => ({
    id,
    origin: 'derived',
    fault,
    profile: profile.id,
    target: specificationTarget(`mutant:${id}`, withRows(transition, rows)),
    ...(EQUIVALENT.has(id) && { equivalent: EQUIVALENT.get(id) as string }),
  });
  const rows = transition.guards.filter((guard) => holdsIn(profile, guard.only));
  const mutants: Mutant[] = [];
  for (const guard of guards) {
    if (!isDecided(guard)) continue;
    const dropped = rows.filter((each) => each !== guard);
    mutants.push(mutant(`drop:${guard.id}`, `does not check whether ${guard.when}`, dropped));
    const next = rows[rows.indexOf(guard) + 1];
    if (next === undefined || !isDecided(next) || answerOf(next) === answerOf(guard)) continue;
    if (guard.group !== undefined && guard.group === next.group) continue;
    const swapped = rows.map((each) => (each === guard ? next : each === next ? guard : each));
    const id = `swap:${guard.id}:${next.id.slice(next.id.indexOf('/') + 1)}`;
    mutants.push(mutant(id, `checks whether ${next.when} before whether ${guard.when}`, swapped));
  }
  return mutants;
}

const rulesText = (profile: Profile): string =>
  JSON.stringify(
    new Specification({ profile, machine: FULL_MACHINE }, CATALOGUE).rules().map((rule) => [rule.id, rule.result]),
  );

/** A kernel of one release that is taken for another. */
function confusedProfiles(): Mutant[] {
  return PROFILES.flatMap((expected) =>
    PROFILES.filter(
      (real) => real.features.length === 0 && expected.features.length === 0 && rulesText(real) !== rulesText(expected),
    ).map((real): Mutant => {
      const id = `profile:${expected.id}-behaves-as-${real.id}`;
      return {
        id,
        origin: 'derived',
        fault: `follows the rules of ${real.id}`,
        profile: expected.id,
        target: specificationTarget(`mutant:${id}`, CATALOGUE, FULL_MACHINE, () => profileById(real.id)),
      };
    }),
  );
}

export const DERIVED: readonly Mutant[] = [...CATALOGUE.flatMap(derivedFrom), ...confusedProfiles()];
