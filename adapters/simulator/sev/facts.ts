/** What is true of a machine with SEV. Only looks, changes nothing. */
import type { Facts, KeyFact, LineFact } from '../../../model/core/facts.ts';
import { ARENA } from '../mm.ts';
import { HWPOISON_ENTRY } from '../objects.ts';
import { ASIDS } from './asids.ts';
import type { SevInfo } from './objects.ts';
import type { Sharing } from './sharing.ts';

export function sevFacts(machine: Sharing): Facts {
  const vms = [...machine.vmList].map((kvm) => ({ kvm, vm: kvm.label, sev: machine.toKvmSevInfo(kvm) }));
  const active = vms.filter(({ sev }) => sev.active);
  const pageOf = arenaPages(machine);
  return {
    keys: ASIDS.map((key) => keyFact(machine, key)),
    keyUsers: active.map(({ vm, sev }) => ({ vm, key: sev.asid, owner: sev.ownerBirth })),
    regions: vms.flatMap(({ vm, sev }) =>
      (sev.regionsList ?? []).map(({ frames }) => {
        const start = pageOf(frames[0] ?? 0);
        return { vm, start, end: start + frames.length };
      }),
    ),
    pins: [...machine.pinCounts].map(([frame, count]) => ({ page: pageOf(frame), count })),
    lines: keyedLines(machine),
    saveAreas: [...machine.saveAreas],
  };
}

function keyFact(machine: Sharing, key: number): KeyFact {
  const flushed = !machine.memory.holdsOther(key, machine.firmware.keyOf(key));
  if (!machine.asidBitmap.has(key)) return { key, state: 'free', flushed };
  if (machine.reclaimAsidBitmap.has(key)) return { key, state: 'reclaim', flushed };
  const owner = [...machine.vmList].find((kvm) => ownsAsid(machine.toKvmSevInfo(kvm), key));
  if (owner !== undefined) return { key, state: 'assigned', vm: owner.label, flushed };
  return { key, state: 'leaked', vm: machine.leakedAsids.get(key), flushed };
}

const ownsAsid = ({ active, asid, encContextOwner }: SevInfo, key: number): boolean =>
  active && asid === key && encContextOwner === undefined;

/** Lines of free frames that are still to be written back, under a key that nobody has for them any more. */
const keyedLines = ({ freeRuns, memory }: Sharing): readonly LineFact[] =>
  memory.dirtyFrames
    .filter((each) => freeRuns.some(({ frame, count }) => frame <= each && each < frame + count))
    .map((frame) => ({ frame, line: 0, state: 'keyed' }));

/** Pages of the arena, by frame. Those of regions are there: nobody takes them away. */
function arenaPages(machine: Sharing): (frame: number) => number {
  const ptes = machine.vmas.get(ARENA)?.ptes.all ?? [];
  return (frame) => {
    for (const { start, end, value } of ptes)
      if (value !== HWPOISON_ENTRY && start + value <= frame && frame < end + value) return frame - value;
    return frame;
  };
}
