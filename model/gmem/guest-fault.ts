/**
 * How a guest access finds its page: the attribute decides the world, the slot decides the backing.
 * Source: arch/x86/kvm/mmu/mmu.c: kvm_mmu_faultin_pfn(), __kvm_mmu_faultin_pfn(), kvm_mmu_faultin_pfn_gmem().
 */
import { KVM_MEM, PAGE_SHIFT, toPages } from '../core/abi.ts';
import { add, assign, has, intersects, remove } from '../core/ranges.ts';
import { GUARD_PAGES, known, openAs, withVm } from '../core/state.ts';
import type { Label, Slot, StageTwoTarget, State, Vm } from '../core/state.ts';
import type { Refusal } from '../core/transition.ts';
import { gupRefuses, hostMayTouch, isOutOfDirectMap, touchMapping, usePages } from './content.ts';
import { withoutSecretMemory } from './mem-secret.ts';
import { hostPage, isHostPoisoned, slotAt } from './slots.ts';
import { withoutPrivateMemory } from './vm-create.ts';

type GmemObstacle = 'private-without-gmem' | 'file-gone' | 'poisoned';
type HostObstacle =
  'host-address-unknown' | 'host-page-missing' | 'host-page-poisoned' | 'host-page-secret' | 'host-page-hidden';

/** Why a guest frame cannot be mapped, in the order in which the kernel finds out. */
export type Obstacle = 'private-without-slot' | 'no-slot' | GmemObstacle | HostObstacle;

/** In which profiles, and on which machines and targets, an obstacle cannot be met. */
export const limitsOf = (obstacle: Obstacle): Pick<Refusal<never>, 'unreachable' | 'requires' | 'only'> => ({
  ...(obstacle.startsWith('private-') && { unreachable: withoutPrivateMemory }),
  ...(obstacle === 'host-page-secret' && { unreachable: withoutSecretMemory, only: { without: 'direct-map' } }),
  ...(obstacle.endsWith('poisoned') && { requires: 'memory-failure' }),
  ...(obstacle.endsWith('hidden') && { only: { feature: 'direct-map-host-address' } }),
});

export interface Found {
  readonly inode: Label;
  readonly page: number;
  /** Where the page is reached through the host address of the slot. */
  readonly mapping?: Label;
  readonly mappingPage?: number;
  readonly private: boolean;
  readonly slot: Slot;
}

export const isFound = (resolution: Found | string): resolution is Found => typeof resolution === 'object';

export const vmOfVcpu = (state: State, vcpuFd: Label): Label =>
  known(state.vcpus, openAs(state, vcpuFd, 'vcpu') ?? vcpuFd).vm;

export const isPrivateGfn = (state: State, vm: Label, gfn: number): boolean => has(known(state.vms, vm).private, gfn);

/** Whether faults on the slot go to guest memory rather than to the host address. */
const usesGmem = (slot: Slot, isPrivate: boolean): boolean => isPrivate || slot.gmem?.only === true;

/** The page that a slot shows of its file. */
export function gmemPage(state: State, slot: Slot, gfn: number, isPrivate: boolean): Found | GmemObstacle {
  if (slot.gmem === undefined) return 'private-without-gmem';
  const { file, firstPage } = slot.gmem;
  if (file === undefined) return 'file-gone';
  const { inode } = known(state.files, file);
  const page = gfn - slot.baseGfn + firstPage;
  return has(known(state.inodes, inode).poisoned, page) ? 'poisoned' : { inode, page, private: isPrivate, slot };
}

/** The page that the process has at the host address of a slot; whether KVM may have it for the guest, GUP says. */
export function hostBackedPage(
  state: State,
  slot: Slot,
  gfn: number,
): Found | Exclude<HostObstacle, 'host-page-secret'> {
  const at = hostPage(state, slot.hva.base, toPages(slot.hva.offset) + gfn - slot.baseGfn);
  if (at === 'unknown') return 'host-address-unknown';
  if (at === 'nothing') return 'host-page-missing';
  const inode = known(state.inodes, at.inode);
  if (at.page >= inode.pages || !hostMayTouch(inode)) return 'host-page-missing';
  if (isHostPoisoned(state, at)) return 'host-page-poisoned';
  // Written out, here and for host accesses: with a spread, generating and stepping takes a quarter longer.
  return { inode: at.inode, page: at.page, mapping: at.mapping, mappingPage: at.mappingPage, private: false, slot };
}

export function resolveGfn(state: State, vmLabel: Label, gfn: number): Found | Obstacle {
  const vm = known(state.vms, vmLabel);
  const isPrivate = has(vm.private, gfn);
  const slot = slotAt(vm, gfn);
  if (slot === undefined) return isPrivate ? 'private-without-slot' : 'no-slot';
  if (usesGmem(slot, isPrivate)) return gmemPage(state, slot, gfn, isPrivate);
  const found = hostBackedPage(state, slot, gfn);
  if (!isFound(found)) return found;
  const inode = known(state.inodes, found.inode);
  // What KVM copies from a host address it can have; what it maps comes from GUP, which gives no such page away.
  if (gupRefuses(inode)) return 'host-page-secret';
  return isOutOfDirectMap(inode) ? 'host-page-hidden' : found;
}

/** Whether the frame is guest memory although the host address of its slot shows other memory, which could be had. */
export function winsOverHost(
  state: State,
  { slot, inode, page, private: isPrivate, mapping }: Found,
  gfn: number,
): boolean {
  if (mapping !== undefined || isPrivate) return false;
  const host = hostBackedPage(state, slot, gfn);
  return isFound(host) && (host.inode !== inode || host.page !== page);
}

/** The first frame past `gfn`, at most `end`, up to which pages surely resolve as the one at `gfn` does. */
export function extentOf(state: State, vmLabel: Label, found: Found, gfn: number, end: number): number {
  const vm = known(state.vms, vmLabel);
  const inode = known(state.inodes, found.inode);
  let limit = Math.min(end, found.slot.baseGfn + found.slot.pages);
  for (const { start, end: last } of vm.private)
    for (const edge of [start, last]) if (edge > gfn) limit = Math.min(limit, edge);
  for (const { start } of inode.poisoned) if (start > found.page) limit = Math.min(limit, gfn + start - found.page);
  if (found.mapping !== undefined) {
    const map = known(state.mappings, found.mapping);
    const last = Math.min(map.firstPage + map.pages, inode.pages);
    limit = Math.min(limit, gfn + last - found.page);
    const page = found.mappingPage ?? 0;
    for (const { start } of map.poisonEntries) if (start > page) limit = Math.min(limit, gfn + start - page);
  }
  return limit;
}

const sameTarget = (a: StageTwoTarget, b: StageTwoTarget): boolean =>
  a.inode === b.inode && a.delta === b.delta && a.private === b.private && a.writable === b.writable;

/** The pages get folios; those that are reached through the host are mapped there first. */
export function faultIn(state: State, { inode, page, mapping, mappingPage = 0 }: Found, pages: number): State {
  const resident = usePages(state, inode, page, page + pages);
  return mapping === undefined ? resident : touchMapping(resident, mapping, mappingPage, pages);
}

/** The pages get folios, and stage 2 shows them to the guest. */
export function mapGfns(state: State, vmLabel: Label, found: Found, gfn: number, end: number): State {
  const resident = faultIn(state, found, end - gfn);
  const target: StageTwoTarget = {
    inode: found.inode,
    delta: found.page - gfn,
    private: found.private,
    writable: (found.slot.flags & KVM_MEM.READONLY) === 0n,
  };
  const { stageTwo, mmio } = known(resident.vms, vmLabel);
  const after = assign(stageTwo, gfn, end, target, sameTarget);
  if (after === stageTwo && !intersects(mmio, gfn, end)) return resident;
  return withVm(resident, vmLabel, { stageTwo: after, mmio: remove(mmio, gfn, end) });
}

/** A frame that no slot shows has been faulted in: KVM may remember it as MMIO until it maps something there. */
export const rememberMmio = (state: State, vm: Label, gfn: number): State =>
  withVm(state, vm, { mmio: add(known(state.vms, vm).mmio, gfn, gfn + 1) });

export const gfnAt = (gpa: bigint): number => Number(gpa >> PAGE_SHIFT);

/** First address past what a guest can name. */
export const guestTop = (state: State): bigint => 1n << BigInt(state.config.machine.vcpuPhysicalBits);

/** A frame of a slot whose access meets the obstacle, for generators that aim at it; near the slots' edges only. */
export function findObstacle(state: State, vmLabel: Label, wanted: Obstacle): number | undefined {
  const vm = known(state.vms, vmLabel);
  if (!mayOccur(state, vm, wanted)) return undefined;
  for (const gfn of landmarks(state, vm)) if (gfn >= 0 && resolveGfn(state, vmLabel, gfn) === wanted) return gfn;
  return undefined;
}

/** A quick look at whether any frame of the VM could meet the obstacle. */
function mayOccur(state: State, vm: Vm, wanted: Obstacle): boolean {
  const someSlot = (holds: (slot: Slot) => boolean): boolean => [...vm.slots.values()].some(holds);
  switch (wanted) {
    case 'private-without-slot':
    case 'private-without-gmem':
      return vm.private.length > 0;
    case 'file-gone':
      return someSlot(({ gmem }) => gmem !== undefined && gmem.file === undefined);
    case 'host-address-unknown':
      return someSlot(({ hva, pages }) => hva.base === '' || pages > GUARD_PAGES);
    case 'poisoned':
    case 'host-page-poisoned':
      return (
        [...state.inodes.values()].some(({ poisoned }) => poisoned.length > 0) ||
        [...state.mappings.values()].some(({ poisonEntries }) => poisonEntries.length > 0)
      );
    case 'host-page-secret':
      return [...state.inodes.values()].some(gupRefuses);
    case 'host-page-hidden':
      return [...state.inodes.values()].some(isOutOfDirectMap);
    case 'no-slot':
    case 'host-page-missing':
      return true;
  }
}

/** Frames at and near which an access comes to something else than at others. */
export function landmarks(state: State, vm: Vm): number[] {
  const found: number[] = [];
  for (const { baseGfn, pages } of vm.slots.values())
    for (let page = 0; page < Math.min(pages, 16); page++) found.push(baseGfn + page);
  for (const { start, end } of vm.private) found.push(start, end - 1);
  found.push(0);
  for (const { baseGfn, pages, gmem } of vm.slots.values()) {
    found.push(baseGfn + pages, baseGfn - 1, baseGfn + pages - 1);
    const inode = gmem?.file === undefined ? undefined : state.files.get(gmem.file)?.inode;
    if (inode === undefined || gmem === undefined) continue;
    for (const { start, end } of known(state.inodes, inode).poisoned)
      if (intersects([{ start, end }], gmem.firstPage, gmem.firstPage + pages))
        found.push(baseGfn + Math.max(start, gmem.firstPage) - gmem.firstPage);
  }
  return found;
}
