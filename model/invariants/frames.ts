/** Finding things by frame or by guest frame. */
import type { ResidentFact, SlotFact } from '../core/facts.ts';

/** A fact that says which frames it is about. */
export type Framed<T extends { readonly frame?: number | undefined }> = T & { readonly frame: number };

export const isFramed = <T extends { readonly frame?: number | undefined }>(fact: T): fact is Framed<T> =>
  fact.frame !== undefined;

/** The run of resident pages that has the frame. */
export const residentAt = (resident: readonly ResidentFact[], frame: number): Framed<ResidentFact> | undefined =>
  resident.find(
    (run): run is Framed<ResidentFact> => isFramed(run) && frame >= run.frame && frame < run.frame + run.count,
  );

/** The slot that shows a guest frame to a vCPU that is not in system management mode. */
export const slotAt = (slots: readonly SlotFact[], vm: string, gfn: number): SlotFact | undefined =>
  slots.find((each) => each.vm === vm && gfn >= each.baseGfn && gfn < each.baseGfn + each.pages && each.slot <= 0xffff);
