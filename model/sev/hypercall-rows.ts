/** What the commands of guests that call the host have in common. */
import { callingGuest } from '../core/domain.ts';
import { pickOr, type Random } from '../core/random.ts';
import { known, withEntry, type Label, type State } from '../core/state.ts';
import type { HypercallGuest } from '../core/state-hypercall.ts';
import type { Guard } from '../core/transition.ts';

export const THREAD = 'v2 "Add AMD SEV specific Hypercall3", December 2020, and its thread';
export const KVM_HC_MAP_GPA_RANGE = 12n;

export const guest = callingGuest();

export interface OnGuest {
  readonly guest: Label;
}

export const guestOf = (state: State, label: Label): HypercallGuest => known(state.hypercall.guests, label);

export const withGuest = (state: State, label: Label, change: Partial<HypercallGuest>): State => ({
  ...state,
  hypercall: { guests: withEntry(state.hypercall.guests, label, { ...guestOf(state, label), ...change }) },
});

export const noGuest = <A extends OnGuest>(command: string): Guard<A> => ({
  id: `${command}/no-guest`,
  unmodelled: 'a guest that is not there calls nobody',
  when: 'no guest was created under the label, or it is gone',
  source: 'virt/kvm/kvm_main.c: kvm_vm_release()',
  violated: ({ guest: label }, state) => !state.hypercall.guests.has(label),
});

export const aimed = <A extends OnGuest>(row: Guard<A>): Guard<A> => ({
  ...row,
  violate: (args, state, random) =>
    pickOr(
      random,
      Array.from(state.hypercall.guests.keys(), (label) => ({ ...args, guest: label })).filter((each) =>
        row.violated(each, state),
      ),
    ),
});

export const chooseGuest = (
  random: Random,
  state: State,
  wanted: (guest: HypercallGuest) => boolean = () => true,
): Label | undefined =>
  pickOr(
    random,
    [...state.hypercall.guests].filter(([, each]) => wanted(each) || random.below(30) === 0).map(([label]) => label),
  );
