import { CAPABILITIES, type Capability, type Target } from '../adapters/adapter.ts';

/** Why the target lacks the capability, in words. */
export const whyWithout = ({ missing }: Pick<Target, 'missing'>, capability: Capability): string =>
  missing?.[capability] ?? `the target does not say that it ${CAPABILITIES[capability]}`;
