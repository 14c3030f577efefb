/** SEV guests and their keys: what follows from their state, and how it changes. */
import { known, withEntry, withoutEntry, type Label, type State } from '../core/state.ts';
import type { SevFailure, SevMachine, SevVm } from '../core/state-sev.ts';

export const vmOf = ({ sev }: State, label: Label): SevVm => known(sev.vms, label);

export const withMachine = (state: State, change: Partial<SevMachine>): State => ({
  ...state,
  sev: { ...state.sev, ...change },
});

export const withVm = (state: State, label: Label, change: Partial<SevVm>): State =>
  withMachine(state, { vms: withEntry(state.sev.vms, label, { ...vmOf(state, label), ...change }) });

export const VCPUS = ['0', '1'] as const;

/** ASIDs of plain SEV, and those that SEV-ES and SNP share. */
const SEV_ASIDS: readonly number[] = [3, 4];
const ES_ASIDS: readonly number[] = [1, 2];
export const ASIDS: readonly number[] = [...ES_ASIDS, ...SEV_ASIDS];

/** The VM that an ASID belongs to, which is no mirror. */
export const ownerOf = ({ sev }: State, asid: number): Label | undefined =>
  [...sev.vms].find(([, vm]) => vm.asid === asid && vm.owner === undefined)?.[0];

const isFree = (state: State, asid: number): boolean =>
  ownerOf(state, asid) === undefined && !state.sev.reclaim.has(asid) && !state.sev.leaked.has(asid);

export const isFailing = ({ sev }: State, what: SevFailure): boolean => sev.failing.has(what);

/** The command of the firmware was made; it does not fail again. */
export const passed = (state: State, what: SevFailure): State =>
  isFailing(state, what)
    ? withMachine(state, { failing: new Set([...state.sev.failing].filter((each) => each !== what)) })
    : state;

/** The ASID that a guest gets, and the state behind the flush that this may take; none where there is none to have. */
export function allocated(state: State, isEs: boolean): { readonly asid: number | undefined; readonly state: State } {
  const range = isEs ? ES_ASIDS : SEV_ASIDS;
  const free = range.find((asid) => isFree(state, asid));
  if (free !== undefined) return { asid: free, state };
  if (!range.some((asid) => state.sev.reclaim.has(asid))) return { asid: undefined, state };
  if (isFailing(state, 'df-flush')) return { asid: undefined, state: passed(state, 'df-flush') };
  const flushed = withMachine(state, { reclaim: new Set() });
  return { asid: range.find((asid) => isFree(flushed, asid)), state: flushed };
}

function isReferenced({ sev }: State, label: Label, { isOpen, vcpus }: SevVm): boolean {
  return (
    isOpen ||
    [...vcpus.values()].some((vcpu) => vcpu.isOpen) ||
    [...sev.files.values()].some(({ vm }) => vm === label) ||
    [...sev.vms.values()].some(({ owner }) => owner === label)
  );
}

export const isThere = ({ sev }: State, label: Label): boolean => sev.vms.get(label)?.isOpen === true;

/** The firmware forgets the context, or it does not: then only an SNP guest's ASID is not got back. */
function destroyed(before: State, label: Label, vm: SevVm): State {
  const state = withMachine(before, { vms: withoutEntry(before.sev.vms, label) });
  if (vm.asid === undefined || vm.owner !== undefined) return state;
  const { asid, context } = vm;
  const reclaimed = (after: State): State => withMachine(after, { reclaim: new Set([...after.sev.reclaim, asid]) });
  if (context === undefined) return reclaimed(state);
  const decommissioned = passed(
    withMachine(state, { contexts: withoutEntry(state.sev.contexts, context) }),
    'decommission',
  );
  const isLeaked = vm.isSnp && isFailing(state, 'decommission');
  return isLeaked
    ? withMachine(decommissioned, { leaked: withEntry(state.sev.leaked, asid, label) })
    : reclaimed(decommissioned);
}

/** Without the VMs that nothing refers to any more: one that goes may be all that referred to another. */
export function released(state: State): State {
  const gone = [...state.sev.vms].find(([label, vm]) => !isReferenced(state, label, vm));
  return gone === undefined ? state : released(destroyed(state, ...gone));
}
