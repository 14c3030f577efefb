/** What programs for a target may have, and why not the rest. */
import { CAPABILITIES, type Abilities, type Capability, type Target } from '../adapters/adapter.ts';

/** Why the target lacks the capability, in words. */
export const whyWithout = ({ missing }: Pick<Target, 'missing'>, capability: Capability): string =>
  missing?.[capability] ?? `the target does not say that it ${CAPABILITIES[capability]}`;

export const abilitiesOf = ({ capabilities, commands }: Abilities): Abilities => ({ capabilities, commands });

interface Demand {
  /** Of the command. */
  readonly name: string;
  readonly requires?: Capability | undefined;
}

/** What the command takes and the target has not, or undefined where programs may have it. */
export function lackOf({ capabilities, commands }: Abilities, { name, requires }: Demand): string | undefined {
  if (commands?.has(name) === false) return name;
  return requires === undefined || capabilities.has(requires) ? undefined : requires;
}
