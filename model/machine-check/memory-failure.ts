/** memory_failure() and unpoison_memory(), of the host about what backs a guest frame, and of a guest's kernel about its frames. */
import type { McPage, McTouch, McWork } from '../core/machine-check.ts';
import type { Label, State } from '../core/state.ts';
import {
  endedBy,
  freed,
  guestOf,
  isOwnOfKernel,
  isVirtual,
  pageOf,
  withEnded,
  withGuest,
  withMachine,
  withoutMemory,
  withPage,
} from './machine.ts';

const withNumber = (list: readonly number[], one: number): readonly number[] =>
  list.includes(one) ? list : [...list, one];

/** The frame that the host means by a guest frame: what backs it, or did so last. */
export const frameOf = ({ backing, detached }: McPage): number | undefined => backing?.frame ?? detached;

export const isKnownToHost = (state: State, page: McPage): boolean => {
  const frame = frameOf(page);
  return frame !== undefined && state.mc.poisonedFrames.includes(frame);
};

interface HostFailure {
  readonly guest: Label;
  readonly gfn: string;
  /** Nothing is bad in the frame: somebody said so. */
  readonly isSimulated?: boolean;
  /** The thread that consumed the poison is told itself, so that the main thread needs no early signal. */
  readonly isRequired?: boolean;
}

/**
 * The host after memory_failure() of the frame behind a guest frame. Ordinary memory is unmapped and detached, and the VMM
 * told; memory of gmem stays where it is, unmapped, and nobody is told, because mm takes what gmem answers for a failure.
 */
export function hostFailed(state: State, { guest, gfn, isSimulated = false, isRequired = false }: HostFailure): State {
  const page = pageOf(state, guest, gfn);
  const frame = frameOf(page);
  const hadFailure = state.mc.hadFailure || !isSimulated;
  if (frame === undefined || isKnownToHost(state, page)) return withMachine(state, { hadFailure });
  const isOrdinary = guestOf(state, guest).memory === 'ordinary';
  const wasThere = page.backing !== undefined;
  const { told } = guestOf(state, guest);
  const change = isOrdinary ? { isTaken: true, backing: undefined, detached: frame } : { isTaken: true };
  const poisoned = withPage(state, guest, gfn, change, {
    isDisturbed: true,
    told: isOrdinary && wasThere && !isRequired ? [...told, gfn] : told,
  });
  return withMachine(poisoned, {
    hadFailure,
    poisonedFrames: withNumber(state.mc.poisonedFrames, frame),
    // set_mce_nospec() is called where memory_failure() succeeds, and not by who simulates it.
    absentFrames:
      isSimulated || !(isOrdinary || !wasThere) ? state.mc.absentFrames : withNumber(state.mc.absentFrames, frame),
  });
}

/** The kernel on the hardware is told of what is bad in the frame, and nobody has consumed it: the host does its work, or a worker is to. */
export function foundByHardware(state: State, label: Label, gfn: string): State {
  if (isVirtual(state)) return hostFailed(state, { guest: label, gfn });
  const report: McWork = { gfn, step: 'recover', kills: 'never', checks: 0, saysUnmapped: false };
  return withGuest(state, label, { worker: [...guestOf(state, label).worker, report] });
}

/** The host has the frame as it found it: it backs the guest frame, and nobody said that it is poisoned. */
export function isNews(state: State, label: Label, gfn: string): boolean {
  const page = pageOf(state, label, gfn);
  return page.backing !== undefined && !isKnownToHost(state, page);
}

/** What the threads of the VMM have yet to do for the host, in order of vCPUs. */
export const hostWorkOf = (state: State, label: Label): readonly McTouch[] =>
  guestOf(state, label).cpus.flatMap(({ stage, touch }) =>
    stage === 'host-work' && touch !== undefined ? [touch] : [],
  );

/** The host once threads have done that, on their way out. */
export const hostDone = (state: State, label: Label): State =>
  hostWorkOf(state, label).reduce((now, { gfn }) => hostFailed(now, { guest: label, gfn, isRequired: true }), state);

/** The host, and a guest whose VMM was killed because it could not be told where its memory failed. */
export function vmmKilled(state: State, label: Label, work: readonly McTouch[]): State {
  const failed = work.reduce((now, { gfn }) => hostFailed(now, { guest: label, gfn, isRequired: true }), state);
  const after = withEnded(failed, label, 'killed', endedBy(label, 'vmm', work[0]));
  return withGuest(after, label, withoutMemory, { endings: after.mc.endings });
}

/** The host’s direct map without the frame, although nothing else had to be done. */
export function hidden(state: State, frame: number): State {
  return withMachine(state, { absentFrames: withNumber(state.mc.absentFrames, frame) });
}

/** unpoison_memory() of a frame that was taken from behind ordinary memory: it is free. */
export function hostUnpoisoned(state: State, frame: number): State {
  return withMachine(state, { poisonedFrames: state.mc.poisonedFrames.filter((each) => each !== frame) });
}

/** What the kernel of the guest does with the page: user space has a poison entry of it, unless it can be read again. */
function givenUp(page: McPage): Partial<McPage> {
  if (isOwnOfKernel(page)) return {};
  if (page.use === 'clean') return freed(page);
  return { use: 'free', entries: new Map([...page.entries.keys()].map((task) => [task, 'poison'])) };
}

/** A guest after memory_failure() of a frame that its kernel did not know to be poisoned. */
export function guestFailed(state: State, label: Label, gfn: string, isSimulated = false): State {
  const hadFailure = guestOf(state, label).hadFailure || !isSimulated;
  const page = pageOf(state, label, gfn);
  const failed = page.isPoisoned ? state : withPage(state, label, gfn, { isPoisoned: true, ...givenUp(page) });
  return withGuest(failed, label, { hadFailure, isDisturbed: true });
}
