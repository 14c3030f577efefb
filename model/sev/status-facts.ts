/** What the state says is true of guests that announce shared pages, in the vocabulary of facts. */
import type { FactParts } from '../core/facts.ts';
import type { State } from '../core/state.ts';
import { recordOf } from './status-machine.ts';

/** What a call costs is for targets to measure. */
export const statusFacts = (state: State): Pick<FactParts, 'announced' | 'records'> => ({
  announced: Array.from(state.status.guests, ([guest, { announced }]) => ({ guest, ranges: announced })),
  records: Array.from(state.status.guests, ([guest, each]) => ({ guest, ...recordOf(state, each) })),
});
