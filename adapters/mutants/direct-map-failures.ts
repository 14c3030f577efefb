/** The simulator with one mistake each about changes of the direct map that fail. */
import { GMEM_FLAG } from '../../model/core/abi.ts';
import type { Errno } from '../../model/core/outcome.ts';
import type { Folio } from '../simulator/frames.ts';
import { SimulatorMachine } from '../simulator/index.ts';
import type { Inode } from '../simulator/objects.ts';
import type { Fault } from './fault.ts';

const COUNTED = 'direct-map-rfc-v2';

const hostMayFault = ({ flags }: Inode): boolean => (flags & GMEM_FLAG.INIT_SHARED) !== 0n;

export const DIRECT_MAP_FAILURES: readonly Fault[] = [
  {
    id: 'failed-removal-ignored',
    profile: COUNTED,
    shortest: 4,
    fault: 'gives out a page that could not leave the direct map',
    machine: class extends SimulatorMachine {
      override kvmGmemAdded(folio: Folio): undefined {
        super.kvmGmemAdded(folio);
      }
    },
  },
  {
    id: 'failed-removal-not-retried',
    profile: COUNTED,
    shortest: 6,
    fault: 'takes a page out of the direct map only when it is new, as the RFC of July 2024 does',
    machine: class extends SimulatorMachine {
      override kvmGmemFound(): undefined {
        // What could not leave stays for ever.
      }
    },
  },
  {
    id: 'unrestored-page-reused',
    profile: COUNTED,
    shortest: 5,
    fault: 'frees a page that could not be put back into the direct map to the allocator',
    machine: class extends SimulatorMachine {
      override folioSetHwpoison(): void {
        // As v12 and v13, which say that it cannot happen.
      }
    },
  },
  {
    id: 'removal-marked-before-done',
    profile: 'direct-map-v12',
    shortest: 5,
    fault: 'marks a page as taken out before it is, and leaves the mark where that fails (v9, as posted)',
    machine: class extends SimulatorMachine {
      override kvmGmemFolioSetPrivate(folio: Folio): Errno | undefined {
        const error = super.kvmGmemFolioSetPrivate(folio);
        if (error !== undefined) this.pagePrivate.set(folio.frame, folio.frame + folio.count, true);
        return error;
      }
    },
  },
  {
    id: 'guest-fault-ignores-failed-removal',
    profile: 'direct-map-v12',
    shortest: 6,
    fault:
      'looks whether a page could leave the direct map where the host faults it in, and not where a guest does (v9)',
    machine: class extends SimulatorMachine {
      override kvmGmemUsed(inode: Inode, folio: Folio): Errno | undefined {
        const error = super.kvmGmemUsed(inode, folio);
        return hostMayFault(inode) ? error : undefined;
      }
    },
  },
  {
    id: 'failed-page-stays-in-file',
    profile: 'direct-map-v13',
    shortest: 5,
    fault: 'leaves a page in its file that could not leave the direct map',
    machine: class extends SimulatorMachine {
      override filemapAddFails(): void {
        // The next one finds it there.
      }
    },
  },
];
