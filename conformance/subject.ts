import type { Target } from '../adapters/adapter.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { DEFAULT_PROFILE, profileById } from '../model/core/profile.ts';
import { Specification } from '../model/core/specification.ts';

export interface SubjectOptions {
  /** Whose rules hold; by default those that the target should keep, where it says so. */
  readonly profile?: string;
  /** The commands that the target has; by default all. */
  readonly commands?: readonly string[];
}

/** What the target is held against. Throws a RangeError that lists what there is. */
export function specificationFor(
  { machine, profile: own }: Pick<Target, 'machine' | 'profile'>,
  { profile = own?.id ?? DEFAULT_PROFILE, commands }: SubjectOptions = {},
): Specification {
  const unknown = commands?.find((command) => CATALOGUE.every(({ name }) => name !== command));
  if (unknown !== undefined)
    throw new RangeError(`unknown command '${unknown}'; known are ${CATALOGUE.map(({ name }) => name).join(', ')}`);
  const catalogue = commands === undefined ? CATALOGUE : CATALOGUE.filter(({ name }) => commands.includes(name));
  return new Specification({ profile: profileById(profile), machine }, catalogue);
}
