/**
 * The simulator with one mistake each about who hears that a page goes, and what becomes of the shares of it then. The
 * numbers are those of docs/adr/0009-direct-map.md, "Where the posted code is not what its messages say".
 */
import type { PagesAre } from '../simulator/attributes.ts';
import type { Folio } from '../simulator/frames.ts';
import { SimulatorMachine } from '../simulator/index.ts';
import { PART } from '../simulator/kernel.ts';
import type { GmemFile, Inode, Kvm, PfnCache } from '../simulator/objects.ts';
import type { Fault } from './fault.ts';

const COUNTED = 'direct-map-rfc-v2';

const opposite = (pages: PagesAre): PagesAre => (pages === 'gone' ? 'kept' : 'gone');

export const REVOCATION_FAULTS: readonly Fault[] = [
  {
    id: 'share-taken-again-on-refresh',
    profile: COUNTED,
    shortest: 8,
    fault: 'takes a second share where a cache finds the page that it has already, and puts one (3)',
    machine: class extends SimulatorMachine {
      override putOld(gpc: PfnCache, old: number | undefined): void {
        super.putOld(gpc, gpc.active && gpc.pfn === old ? undefined : old);
      }
    },
  },
  {
    id: 'needs-unmap-inverted',
    profile: COUNTED,
    shortest: 8,
    fault: 'takes a page that was freed out of the direct map, and leaks the share where an attribute changes (5)',
    machine: class extends SimulatorMachine {
      protected override gfnToPfnCacheInvalidateGfns(kvm: Kvm, start: number, end: number, pages: PagesAre): void {
        super.gfnToPfnCacheInvalidateGfns(kvm, start, end, opposite(pages));
      }
    },
  },
  {
    id: 'share-leaked-on-memory-failure',
    profile: COUNTED,
    shortest: 8,
    fault: 'forgets the share of a page that a memory failure hit, as if the page were gone from the file (7)',
    machine: class extends SimulatorMachine {
      override kvmGmemErrorFolio(inode: Inode, index: number): void {
        this.kvmGmemInvalidateStart(inode, index, index + 1, 'gone');
        this.kvmGmemInvalidateEnd(inode, index, index + 1);
      }
    },
  },
  {
    id: 'private-cache-keyed-by-host-address',
    profile: COUNTED,
    shortest: 8,
    fault: 'keeps the page of a valid cache that moves to another slot with the same host address (4)',
    machine: class extends SimulatorMachine {
      override kvmGpcResolve(gpc: PfnCache, gpa: bigint): boolean {
        const { userspacePage } = gpc;
        super.kvmGpcResolve(gpc, gpa);
        return gpc.userspacePage !== userspacePage;
      }
    },
  },
  {
    id: 'invalidation-not-clamped-to-slot',
    profile: COUNTED,
    shortest: 8,
    fault: 'revokes nothing where the hole begins before the first page of the slot: the frame number wraps around (6)',
    machine: class extends SimulatorMachine {
      override kvmGmemInvalidateCachesStart(file: GmemFile, start: number, end: number, pages: PagesAre): void {
        const kvm = this.kvms.at(file.kvm);
        kvm.gpcInvalidateInProgress++;
        for (const { value } of file.bindings.slice(start, end)) {
          const { baseGfn, gmem } = this.slots.at(value);
          const first = start + baseGfn - gmem.pgoff;
          if (first >= 0) this.gfnToPfnCacheInvalidateGfns(kvm, first, end + baseGfn - gmem.pgoff, pages);
        }
      }
    },
  },
  {
    id: 'cache-outlives-slot',
    profile: COUNTED,
    shortest: 8,
    fault: 'deletes a slot and leaves its caches the pages that they have, whose fate they do not hear of any more',
    machine: class extends SimulatorMachine {
      protected override gfnToPfnCacheRevoke(): void {
        // As posted.
      }
    },
  },
  {
    id: 'tlb-flushed-here-only',
    profile: COUNTED,
    shortest: 9,
    fault: 'flushes the TLB of the CPU that takes a page out of the direct map, and no other',
    machine: class extends SimulatorMachine {
      override flushTlbKernelRange({ frame, count }: Folio): void {
        this.tlbs[0].delete(frame, frame + count);
        this.stale |= PART.DIRECT_MAP;
      }
    },
  },
];
