/** What is true of a machine with SEV. Only looks, changes nothing. */
import type { Facts, KeyFact } from '../../../model/core/facts.ts';
import { ARENA } from '../mm.ts';
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

/** Pages of the arena, by frame. */
function arenaPages(machine: Sharing): (frame: number) => number {
  const delta = Number(machine.vmas.get(ARENA)?.ptes.get(0) ?? 0);
  return (frame) => frame - delta;
}
