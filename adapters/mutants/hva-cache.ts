/** The simulator with one mistake each about the host addresses that KVM keeps of guest ranges. */
import { toPages } from '../../model/core/abi.ts';
import type { Errno } from '../../model/core/outcome.ts';
import { SimulatorMachine } from '../simulator/index.ts';
import type { MemSlot, PfnCache } from '../simulator/objects.ts';
import type { Fault } from './fault.ts';

type Init = Parameters<SimulatorMachine['kvmGfnToHvaCacheInit']>;

const faults: readonly Omit<Fault, 'profile'>[] = [
  {
    id: 'host-address-outlives-slot',
    shortest: 6,
    fault: 'goes on with the host address of a guest range although the slots have changed',
    machine: class extends SimulatorMachine {
      override isGhcOutdated(): boolean {
        return false;
      }
    },
  },
  {
    id: 'cached-access-bounded-without-offset',
    shortest: 6,
    fault:
      'lets an access through a cache end behind the range that it is set up for: holds its length alone against it',
    machine: class extends SimulatorMachine {
      override exceedsGhc(...[ghc, , len]: Parameters<SimulatorMachine['exceedsGhc']>): boolean {
        return super.exceedsGhc(ghc, 0n, len);
      }
    },
  },
  {
    id: 'cached-access-crosses-slots',
    shortest: 6,
    fault: 'keeps a host address of a range that goes on in another page, which may be in another slot',
    machine: class extends SimulatorMachine {
      override kvmGfnToHvaCacheInit(...[ghc, gpa, len]: Init): Errno | undefined {
        const error = super.kvmGfnToHvaCacheInit(ghc, gpa, len);
        if (error === undefined) ghc.memslot ??= this.gfnToMemslot(this.kvms.at(ghc.kvm), 0, toPages(gpa))?.address;
        return error;
      }
    },
  },
  {
    id: 'cached-access-ignores-private-memory',
    shortest: 7,
    fault: 'accesses private memory at the host address that a cache keeps (9)',
    machine: class extends SimulatorMachine {
      override isHiddenFromHost(): boolean {
        return false;
      }
    },
  },
  {
    id: 'failed-look-up-keeps-host-address',
    shortest: 7,
    fault: 'goes on with the host address of before where a cache cannot be set up for another range',
    machine: class extends SimulatorMachine {
      override kvmGfnToHvaCacheInit(...[ghc, gpa, len]: Init): Errno | undefined {
        const { userspacePage, memslot } = ghc;
        const error = super.kvmGfnToHvaCacheInit(ghc, gpa, len);
        if (error !== undefined) Object.assign(ghc, { userspacePage, memslot });
        return error;
      }
    },
  },
  {
    id: 'host-address-of-read-only-slot',
    shortest: 5,
    fault: 'sets a cache up for memory that must not be written',
    machine: class extends SimulatorMachine {
      private isForCache = false;

      override kvmGfnToHvaCacheInit(...args: Init): Errno | undefined {
        this.isForCache = true;
        const error = super.kvmGfnToHvaCacheInit(...args);
        this.isForCache = false;
        return error;
      }
      override gfnToHvaMemslot(slot: MemSlot, gfn: number, write: boolean): number | undefined {
        return super.gfnToHvaMemslot(slot, gfn, write && !this.isForCache);
      }
    },
  },
  {
    id: 'cache-checked-by-its-users',
    shortest: 6,
    fault:
      'says that a cache is valid although the slots have changed: those who use one look themselves, and nobody else may',
    machine: class extends SimulatorMachine {
      override kvmGpcCheck(gpc: PfnCache, length: bigint): boolean {
        const { generation } = this.kvms.at(gpc.kvm);
        return super.kvmGpcCheck({ ...gpc, generation }, length);
      }
      override accessCache(gpc: PfnCache, value?: bigint): bigint | Errno {
        const isOutdated = gpc.active && gpc.generation !== this.kvms.at(gpc.kvm).generation;
        return (isOutdated ? this.kvmGpcRefresh(gpc, 8n) : undefined) ?? super.accessCache(gpc, value);
      }
    },
  },
];

export const HVA_CACHE_FAULTS: readonly Fault[] = faults.map((fault) => ({ profile: 'direct-map-rfc-v2', ...fault }));
