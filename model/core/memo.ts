import type { State } from './state.ts';

/**
 * The rows of a command ask about the same arguments in the same state, one after the other. Answers the last question
 * again without computing anew; `compute` must be a function of what it is given.
 */
export function rememberLast<A extends object, T>(compute: (args: A, state: State) => T): (args: A, state: State) => T {
  let last: { readonly args: A; readonly state: State; readonly answer: T } | undefined;
  return (args, state) => {
    if (last?.args !== args || last.state !== state) last = { args, state, answer: compute(args, state) };
    return last.answer;
  };
}
