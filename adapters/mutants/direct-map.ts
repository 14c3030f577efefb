/**
 * The simulator with one mistake each about the direct map: what RFC v2 got wrong as posted, each duty of its patches left
 * out, bugs of pfncaches that really happened, and others of their kind. docs/adr/0009-direct-map.md has the sources.
 */
import { INVALID_GPA } from '../../model/core/abi.ts';
import type { Errno } from '../../model/core/outcome.ts';
import type { PagesAre } from '../simulator/attributes.ts';
import type { Folio } from '../simulator/frames.ts';
import { SimulatorMachine } from '../simulator/index.ts';
import type { GmemFile, Inode, Kvm, MemSlot, PfnCache } from '../simulator/objects.ts';
import type { Fault } from './fault.ts';

const COUNTED = 'direct-map-rfc-v2';

/** Counts shares and does not map or unmap by them. */
const share = (machine: SimulatorMachine, frame: number, change: 1 | -1): void => {
  machine.setSharingCount(frame, (machine.sharingCounts.get(frame) ?? 0) + change);
  machine.shareEvents.push({ event: change === 1 ? 'share' : 'unshare', frame });
};

/** As posted: docs/adr/0009-direct-map.md numbers them. */
const posted: readonly Fault[] = [
  {
    id: 'new-folio-shared-without-mark',
    shortest: 7,
    fault: 'makes a new count for a page that was shared when it was new, and forgets the shares that it had',
    machine: class extends SimulatorMachine {
      private readonly unmarked = new Set<number>();

      override gpcMapGmem(
        ...args: Parameters<SimulatorMachine['gpcMapGmem']>
      ): ReturnType<SimulatorMachine['gpcMapGmem']> {
        const [, { frame }] = args;
        if (this.sharingCounts.get(frame) === undefined) this.unmarked.add(frame);
        else if (this.unmarked.delete(frame)) this.setSharingCount(frame, 0);
        return super.gpcMapGmem(...args);
      }
    },
  },
  {
    id: 'private-page-without-slot',
    shortest: 4,
    fault: 'dereferences the slot of a private frame that has none',
    machine: class extends SimulatorMachine {
      override kvmAccessPrivatePage<T>(kvm: Kvm, gfn: number, access: (folio: Folio) => T): T | Errno {
        if (this.gfnToMemslot(kvm, 0, gfn) === undefined) throw new Error('kernel oops: NULL pointer dereference');
        return super.kvmAccessPrivatePage(kvm, gfn, access);
      }
    },
  },
];

/** What each of the ten patches is there for, left out. */
const duties: readonly Fault[] = [
  {
    id: 'locked-folio-not-unlocked',
    shortest: 6,
    fault: 'gets a folio locked, to share it, and does not unlock it (patch 3)',
    machine: class extends SimulatorMachine {
      override folioUnlock(): void {
        // Who wants the folio next waits for ever.
      }
    },
  },
  {
    id: 'page-stays-in-direct-map',
    shortest: 3,
    fault: 'leaves the pages of a file with NO_DIRECT_MAP where they are (patch 1)',
    machine: class extends SimulatorMachine {
      override kvmGmemFolioSetPrivate({ frame, count }: Folio): undefined {
        this.pagePrivate.set(frame, frame + count, true);
      }
    },
  },
  {
    id: 'freed-page-stays-absent',
    shortest: 4,
    fault: 'frees pages without putting them back into the direct map (patch 1)',
    machine: class extends SimulatorMachine {
      protected override invalidateFolio({ frame, count }: Folio): void {
        this.pagePrivate.delete(frame, frame + count);
      }
    },
  },
  {
    id: 'shared-page-not-mapped',
    shortest: 6,
    fault: 'counts a share and does not put the page into the direct map (patch 2)',
    machine: class extends SimulatorMachine {
      override kvmGmemShare({ frame }: Folio): undefined {
        if (this.pagePrivate.get(frame) === true) share(this, frame, 1);
      }
    },
  },
  {
    id: 'reads-through-the-host-address',
    shortest: 5,
    fault: 'accesses private memory of the guest at the host address of its slot (patch 4)',
    machine: class extends SimulatorMachine {
      override reinserts(): boolean {
        return false;
      }
    },
  },
  {
    id: 'first-to-finish-unmaps',
    shortest: 8,
    fault: 'takes a page out of the direct map when one of its users is done (patch 5)',
    machine: class extends SimulatorMachine {
      override kvmGmemPutSharedPfn(folio: Folio): void {
        const { frame } = folio;
        if (this.pagePrivate.get(frame) !== true) return;
        share(this, frame, -1);
        this.kvmGmemFolioSetPrivate(folio);
      }
    },
  },
  {
    id: 'unshare-not-traced',
    shortest: 6,
    fault: 'does not trace that a share was put (patch 6)',
    machine: class extends SimulatorMachine {
      override kvmGmemPutSharedPfn(folio: Folio): void {
        const before = this.shareEvents.length;
        super.kvmGmemPutSharedPfn(folio);
        this.shareEvents.length = before;
      }
    },
  },
  {
    id: 'conversion-leaves-cache-valid',
    shortest: 6,
    fault: 'changes attributes without invalidating the caches of the range (patch 7)',
    machine: class extends SimulatorMachine {
      protected override gfnToPfnCacheInvalidateGfns(kvm: Kvm, start: number, end: number, pages: PagesAre): void {
        if (pages === 'gone') super.gfnToPfnCacheInvalidateGfns(kvm, start, end, pages);
      }
    },
  },
  {
    id: 'cache-ignores-private-memory',
    shortest: 6,
    fault: 'caches what is at the host address although the frame is private (patch 8)',
    machine: class extends SimulatorMachine {
      override kvmGpcLookUp(kvm: Kvm, gpc: PfnCache): ReturnType<SimulatorMachine['kvmGpcLookUp']> {
        const folio = this.hvaToPfn(gpc.userspacePage);
        return folio === undefined ? super.kvmGpcLookUp(kvm, gpc) : { folio, private: false };
      }
    },
  },
  {
    id: 'punch-leaves-cache-valid',
    shortest: 8,
    fault: 'punches pages without invalidating the caches that point at them (patch 9; mainline to this day)',
    machine: class extends SimulatorMachine {
      override kvmGmemInvalidateCachesStart(file: GmemFile): void {
        this.kvms.at(file.kvm).gpcInvalidateInProgress++;
      }
    },
  },
  {
    id: 'walk-ignores-private-memory',
    shortest: 6,
    fault: 'reads page tables at the host address although their frames are private (patch 10)',
    machine: class extends SimulatorMachine {
      override walkReinserts(): boolean {
        return false;
      }
    },
  },
];

const caches: readonly Fault[] = [
  {
    id: 'cache-pins-its-page',
    shortest: 6,
    fault: 'keeps a reference to every page that a cache has had',
    machine: class extends SimulatorMachine {
      override gpcMapGmem(
        ...args: Parameters<SimulatorMachine['gpcMapGmem']>
      ): ReturnType<SimulatorMachine['gpcMapGmem']> {
        const found = super.gpcMapGmem(...args);
        if (found !== undefined) this.folioGet(found.folio);
        return found;
      }
    },
  },
  {
    id: 'inactive-cache-refreshed',
    shortest: 6,
    fault: 'refreshes a cache that was deactivated',
    machine: class extends SimulatorMachine {
      override kvmGpcRefreshLocked(gpc: PfnCache, gpa: bigint): Errno | undefined {
        if (!gpc.active && gpc.gpa !== INVALID_GPA) gpc.active = true;
        return super.kvmGpcRefreshLocked(gpc, gpa);
      }
    },
  },
  {
    id: 'cache-ignores-generation',
    shortest: 6,
    fault: 'holds a cache valid although the slots have changed',
    machine: class extends SimulatorMachine {
      override kvmGpcCheck(gpc: PfnCache, length: bigint): boolean {
        const { generation } = this.kvms.at(gpc.kvm);
        return super.kvmGpcCheck({ ...gpc, generation }, length);
      }
      protected override gfnToPfnCacheRevoke(kvm: Kvm, slot: MemSlot): void {
        for (const gpc of kvm.gpcList) if (gpc.memslot === slot.address) gpc.private = false;
      }
    },
  },
  {
    id: 'cache-crosses-pages',
    shortest: 4,
    fault: 'lets a cache be activated for a range that crosses a page',
    machine: class extends SimulatorMachine {
      override kvmGpcIsValidLen(): boolean {
        return true;
      }
    },
  },
  {
    id: 'failed-refresh-keeps-share',
    shortest: 8,
    fault: 'keeps the share of the old page when a cache cannot be moved',
    machine: class extends SimulatorMachine {
      override putOld(gpc: PfnCache, old: number | undefined): void {
        super.putOld(gpc, gpc.pfn === undefined && gpc.active ? undefined : old);
      }
    },
  },
  {
    id: 'deactivated-cache-keeps-share',
    shortest: 6,
    fault: 'deactivates a cache and leaves its page in the direct map',
    machine: class extends SimulatorMachine {
      override putOld(gpc: PfnCache, old: number | undefined): void {
        super.putOld(gpc, gpc.active ? old : undefined);
      }
    },
  },
];

const tables: readonly Fault[] = [
  {
    id: 'walk-keeps-its-caches',
    shortest: 6,
    fault: 'ends a walk of page tables without letting go of the tables',
    machine: class extends SimulatorMachine {
      override walkDeactivateGpcs(): void {
        // Their shares stay for ever.
      }
    },
  },
  {
    id: 'dirty-bit-on-read',
    shortest: 6,
    fault: 'sets the dirty bit in a walk for a read',
    machine: class extends SimulatorMachine {
      override updateAccessedDirtyBits(
        walk: Parameters<SimulatorMachine['updateAccessedDirtyBits']>[0],
      ): ReturnType<SimulatorMachine['updateAccessedDirtyBits']> {
        return super.updateAccessedDirtyBits(walk, true);
      }
    },
  },
];

const directMap: readonly Fault[] = [
  {
    id: 'tlb-not-flushed',
    shortest: 3,
    fault: 'takes pages out of the direct map and flushes no TLB',
    machine: class extends SimulatorMachine {
      override flushTlbKernelRange(): void {
        // The design of July 2024, where a count is kept.
      }
    },
  },
  {
    id: 'unmaps-the-next-page',
    shortest: 6,
    fault: 'takes the page behind the one that was shared out of the direct map',
    machine: class extends SimulatorMachine {
      override kvmGmemPutSharedPfn(folio: Folio): void {
        const before = this.sharingCounts.get(folio.frame);
        super.kvmGmemPutSharedPfn(folio);
        if (before !== 1) return;
        this.setDirectMapDefaultNoflush(folio);
        this.setDirectMapInvalidNoflush({ frame: folio.frame + 1, count: 1 });
      }
    },
  },
  {
    id: 'shared-page-hidden-when-freed',
    shortest: 8,
    fault: 'takes a page out of the direct map when it is freed while shared',
    machine: class extends SimulatorMachine {
      protected override invalidateFolio(folio: Folio): void {
        const shared = [...this.sharingCounts.keys()].filter(
          (frame) => frame >= folio.frame && frame < folio.frame + folio.count,
        );
        super.invalidateFolio(folio);
        for (const frame of shared) this.setDirectMapInvalidNoflush({ frame, count: 1 });
      }
    },
  },
  {
    id: 'zeroed-after-removal',
    shortest: 3,
    fault: 'takes a new page out of the direct map before it is zeroed there',
    machine: class extends SimulatorMachine {
      override kvmGmemAdded(folio: Folio): Errno | undefined {
        return this.kvmGmemFolioSetPrivate(folio) ?? super.kvmGmemAdded(folio);
      }
    },
  },
  {
    id: 'only-first-page-removed',
    shortest: 3,
    fault: 'takes only the first page of an allocation out of the direct map',
    machine: class extends SimulatorMachine {
      override setDirectMapInvalidNoflush({ frame }: Folio): Errno | undefined {
        return super.setDirectMapInvalidNoflush({ frame, count: 1 });
      }
    },
  },
  {
    id: 'user-fault-leaves-page-present',
    shortest: 4,
    profile: 'direct-map-v12',
    fault: 'zaps a page that a guest uses, and not one that the host maps',
    machine: class extends SimulatorMachine {
      private isUserFault = false;

      protected override faultUserMapping(
        ...args: Parameters<SimulatorMachine['handleMmFault']>
      ): ReturnType<SimulatorMachine['handleMmFault']> {
        this.isUserFault = true;
        const folio = super.faultUserMapping(...args);
        this.isUserFault = false;
        return folio;
      }
      override kvmGmemUsed(inode: Inode, folio: Folio): Errno | undefined {
        return this.isUserFault ? undefined : super.kvmGmemUsed(inode, folio);
      }
    },
  },
];

export const DIRECT_MAP_FAULTS: readonly Fault[] = [...posted, ...duties, ...caches, ...tables, ...directMap].map(
  (fault) => ({ profile: COUNTED, ...fault }),
);
