/** What the commands of guests that announce shared pages have in common: arguments, rows, and how they are drawn. */
import { choice, statusGuest, statusImage, u64 } from '../core/domain.ts';
import type { Errno, Outcome } from '../core/outcome.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import type { Label, State } from '../core/state.ts';
import type { StatusGuest } from '../core/state-status.ts';
import type { Guard } from '../core/transition.ts';
import { counted, guestOf, isPastRate, withGuest } from './status-machine.ts';

export const THREAD = 'thread of v2 "Add AMD SEV specific Hypercall3", December 2020 and January 2021';

export const guest = statusGuest();
export const image = statusImage();
export const gib = choice('2', '64');
/** A guest physical address; something changes where a bitmap, the memory and the address space end. */
export const gpa = u64({ boundaries: [1n << 31n, 1n << 36n, (1n << 52n) - 4096n, 1n << 52n] });

export interface OnGuest {
  readonly guest: Label;
}

export interface OnImage {
  readonly image: Label;
}

/** The row with a way to break it: by another guest. */
export const aimed = <A extends OnGuest>(row: Guard<A>): Guard<A> => ({
  ...row,
  violate: (args, state, random) =>
    pickOr(
      random,
      Array.from(state.status.guests.keys(), (label) => ({ ...args, guest: label })).filter((each) =>
        row.violated(each, state),
      ),
    ),
});

/** Nobody can name a guest that is not there. Behind this row there is one. */
export const noGuest = <A extends OnGuest>(command: string): Guard<A> => ({
  id: `${command}/no-guest`,
  unmodelled: 'a guest that is not there has no pages',
  when: 'no guest was created under the label, or it was destroyed',
  source: 'virt/kvm/kvm_main.c: kvm_vm_release()',
  violated: ({ guest: label }, state) => !state.status.guests.has(label),
});

export const noImage = <A extends OnImage>(command: string): Guard<A> => ({
  id: `${command}/no-image`,
  unmodelled: 'an image that is not there cannot be named',
  when: 'nothing was saved under the label',
  source: `${THREAD}: what is handed to user space is user space’s`,
  violated: ({ image: label }, state) => !state.status.images.has(label),
});

const DEAD: Outcome = { kind: 'status', status: 'KVM_EXIT_INTERNAL_ERROR' };

/** The guest cannot run. */
export const disabled = <A extends OnGuest>(command: string): Guard<A> =>
  aimed<A>({
    id: `${command}/disabled`,
    result: 'KVM_EXIT_INTERNAL_ERROR',
    outcome: () => DEAD,
    when: 'the guest was taken for an attacker, and is not run any more',
    source: `${THREAD}: Ashish Kalra on a guest that calls for ever`,
    violated: ({ guest: label }, state) => guestOf(state, label).isDisabled,
  });

type Answer = { readonly errno: Errno } | { readonly result: string; outcome(): Outcome };

/**
 * Rows of a hypercall that says nothing yet of its arguments: the policy looks at how many there were. `refused` is what
 * the guest gets of the EAGAIN that the VMM answers.
 */
export const rateRows = <A extends OnGuest>(
  command: string,
  refused: Answer = { errno: 'EAGAIN' },
): readonly Guard<A>[] => [
  aimed<A>({
    ...refused,
    id: `${command}/too-many`,
    group: 'rate',
    when: 'the policy throttles, and has taken 8 hypercalls since the last tick',
    source: `${THREAD}: Ashish Kalra on a guest that calls for ever`,
    violated: ({ guest: label }, state) =>
      isPastRate(guestOf(state, label)) && guestOf(state, label).policy === 'throttle',
  }),
  aimed<A>({
    id: `${command}/attacks`,
    group: 'rate',
    result: 'KVM_EXIT_INTERNAL_ERROR',
    outcome: () => DEAD,
    leaves: ({ guest: label }, state) => withGuest(state, label, { isDisabled: true }),
    when: 'the policy disables, and has taken 8 hypercalls since the last tick: the guest is disabled',
    source: `${THREAD}: Ashish Kalra on a guest that calls for ever`,
    violated: ({ guest: label }, state) =>
      isPastRate(guestOf(state, label)) && guestOf(state, label).policy === 'disable',
  }),
];

/** A second donation is as bad as a call too many. */
export const ATTACK = {
  result: 'KVM_EXIT_INTERNAL_ERROR',
  outcome: (): Outcome => DEAD,
  leaves: ({ guest: label }: OnGuest, state: State): State => withGuest(state, label, { isDisabled: true }),
} as const;

/** The hypercall was refused, and counts. */
export const leavesCount = ({ guest: label }: OnGuest, state: State): State =>
  withGuest(state, label, counted(guestOf(state, label)));

/** A guest of the wanted kind; now and then any. */
export const chooseGuest = (
  random: Random,
  state: State,
  wanted: (guest: StatusGuest) => boolean = () => true,
): Label | undefined =>
  pickOr(
    random,
    [...state.status.guests].filter(([, each]) => wanted(each) || random.below(30) === 0).map(([label]) => label),
  );

export const chooseImage = (random: Random, state: State): Label | undefined =>
  pickOr(random, [...state.status.images.keys()]);

/** Few frames near each other, so that ranges meet; now and then where something ends. */
export function chooseFrames(
  random: Random,
  { memory }: StatusGuest,
): { readonly start: number; readonly pages: number } {
  const pages = pick(random, [1, 1, 1, 1, 2, 3, 8, 512]);
  const start = random.below(10);
  if (random.below(8) > 0) return { start, pages };
  const edge = pick(random, [memory, 2 ** 19, 2 ** 20, 2 ** 24, 2 ** 40]);
  return pick(random, [
    { start: edge - pages, pages },
    { start: edge - 1, pages: 2 },
    { start: edge - 2, pages },
    { start: 0, pages: edge },
  ]);
}
