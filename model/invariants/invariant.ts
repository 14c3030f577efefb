import _ from 'lodash';
import type { FactPart, FactParts, Facts } from '../core/facts.ts';
import { holdsIn, type Condition, type Profile } from '../core/profile.ts';

/** The boundary after one command. */
export interface Moment<F extends Facts = Facts> {
  /** Facts before the command; undefined at the start of a program. */
  readonly before: F | undefined;
  readonly after: F;
  /** Whether the command failed with an error number. */
  readonly failed: boolean;
}

/** One thing that a sentence says, and the parts of the facts that tell whether it is so. */
export interface Clause {
  readonly parts: readonly FactPart[];
  /**
   * Why it holds in the middle of a command as well, wherever another one may run; left out where it may be put right before
   * the command is done.
   */
  readonly always?: string;
  /** What breaks it, in words, or undefined where it holds. To be asked only where the facts have all of the parts. */
  broken(moment: Moment): string | undefined;
}

/** A sentence that holds at every command boundary, for every implementation. */
export interface Invariant {
  readonly id: string;
  readonly sentence: string;
  readonly source: string;
  /** In which profiles there is anything that the sentence speaks of: where one of the conditions holds; all if left out. */
  readonly only?: Condition | readonly Condition[];
  readonly clauses: readonly Clause[];
}

/** Whether there is in the profile what the sentence speaks of. */
export const isAbout = (profile: Profile, { only = {} }: Pick<Invariant, 'only'>): boolean =>
  _.castArray(only).some((condition) => holdsIn(profile, condition));

/**
 * A clause that looks at those parts and at no other. Where none of them has changed since the boundary before, it holds
 * as it did then, and is not asked again.
 */
export function clause<const P extends FactPart>(
  parts: readonly P[],
  broken: (moment: Moment<Pick<FactParts, P>>) => string | undefined,
): Clause {
  const isShown = (facts: Facts): facts is Pick<FactParts, P> => shows(facts, parts);
  return {
    parts,
    broken: ({ before, after, failed }) => {
      if (before !== undefined && isSame(before, after, parts)) return undefined;
      if (!isShown(after)) return undefined;
      return broken({ before: before !== undefined && isShown(before) ? before : undefined, after, failed });
    },
  };
}

// Asked for each clause at each boundary: hence plain loops.
function shows(facts: Facts, parts: readonly FactPart[]): boolean {
  for (const part of parts) if (facts[part] === undefined) return false;
  return true;
}

function isSame(before: Facts, after: Facts, parts: readonly FactPart[]): boolean {
  for (const part of parts) if (before[part] !== after[part]) return false;
  return true;
}

/** The same, of what holds in the middle of a command as well. */
export const always = (why: string, each: Clause): Clause => ({ ...each, always: why });

/** What breaks the invariant in the middle of a command, in words, as far as it is claimed to hold there. */
export function brokenMidway({ clauses }: Invariant, facts: Facts): string | undefined {
  const moment = { before: undefined, after: facts, failed: false };
  for (const each of clauses) {
    const how = each.always === undefined ? undefined : each.broken(moment);
    if (how !== undefined) return how;
  }
  return undefined;
}

/** Whether the facts tell anything of the invariant: whether they have what one of its clauses looks at. */
export function isObservable({ clauses }: Invariant, facts: Facts): boolean {
  for (const { parts } of clauses) if (shows(facts, parts)) return true;
  return false;
}

/** Parts that a target does not show, and without which not all of the sentence can be told. */
export const unseenParts = ({ clauses }: Invariant, shown: ReadonlySet<FactPart>): readonly FactPart[] => [
  ...new Set(clauses.flatMap(({ parts }) => parts.filter((part) => !shown.has(part)))),
];

/** What breaks the invariant, in words, as far as the facts tell; undefined where nothing does. */
export function brokenBy({ clauses }: Invariant, moment: Moment): string | undefined {
  for (const each of clauses) {
    const how = each.broken(moment);
    if (how !== undefined) return how;
  }
  return undefined;
}

export const hex = (value: number): string => `0x${value.toString(16)}`;
