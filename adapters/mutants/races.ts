/** The simulator with one mistake each that shows only where two commands run at the same time. */
import type { Errno } from '../../model/core/outcome.ts';
import type { Folio } from '../simulator/frames.ts';
import { SimulatorMachine } from '../simulator/index.ts';
import { newLock } from '../simulator/kernel.ts';
import { TdxMachine } from '../simulator/td/kvm-tdx.ts';
import type { Fault } from './fault.ts';
import { SEV_RACE_FAULTS } from './sev.ts';
import { host } from './td.ts';

export const RACE_FAULTS: readonly Fault[] = [
  {
    id: 'fault-ignores-invalidation',
    shortest: 5,
    fault:
      'maps a page that was found before it was punched: does not look whether something was invalidated meanwhile',
    machine: class extends SimulatorMachine {
      override isPageFaultStale(): boolean {
        return false;
      }
    },
  },
  {
    id: 'conversion-ends-unnoticed',
    shortest: 5,
    fault: 'does not count the end of an invalidation, so that a fault that began before it maps the old world',
    machine: class extends SimulatorMachine {
      override kvmMmuInvalidateEnd(...[kvm]: Parameters<SimulatorMachine['kvmMmuInvalidateEnd']>): void {
        super.kvmMmuInvalidateEnd(kvm);
        kvm.mmuInvalidateSeq--;
      }
    },
  },
  {
    id: 'slots-change-under-readers',
    shortest: 5,
    fault: 'changes slots without waiting for faults that have looked at the old ones',
    machine: class extends SimulatorMachine {
      override kvmReplaceMemslot(...args: Parameters<SimulatorMachine['kvmReplaceMemslot']>): void {
        const [kvm] = args;
        const { srcuReaders } = kvm;
        kvm.srcuReaders = 0;
        super.kvmReplaceMemslot(...args);
        kvm.srcuReaders = srcuReaders;
      }
    },
  },
  {
    id: 'refresh-ignores-invalidation',
    shortest: 6,
    profile: 'direct-map-rfc-v2',
    fault: 'makes a cache valid although what it found was invalidated meanwhile',
    machine: class extends SimulatorMachine {
      override mmuNotifierRetryCache(): boolean {
        return false;
      }
    },
  },
  {
    id: 'refreshes-not-serialised',
    shortest: 5,
    profile: 'direct-map-rfc-v2',
    fault: 'lets two refreshes of one cache look up its page at the same time, and forgets one of the two shares',
    machine: class extends SimulatorMachine {
      override kvmGpcInit(
        ...args: Parameters<SimulatorMachine['kvmGpcInit']>
      ): ReturnType<SimulatorMachine['kvmGpcInit']> {
        const gpc = super.kvmGpcInit(...args);
        return {
          ...gpc,
          get refreshLock() {
            return newLock('gpc->refresh_lock');
          },
        };
      }
    },
  },
  {
    id: 'restores-after-free',
    shortest: 5,
    profile: 'direct-map-rfc-v2',
    fault: 'puts a page back into the direct map when it was freed already, and may have left it for another file',
    machine: class extends SimulatorMachine {
      private late: Folio[] | undefined;
      override deleteFromPageCache(...args: Parameters<SimulatorMachine['deleteFromPageCache']>): void {
        const late: Folio[] = (this.late = []);
        super.deleteFromPageCache(...args);
        this.late = undefined;
        this.handOver('folio_lock');
        for (const folio of late) super.kvmGmemFolioClearPrivate(folio);
      }
      override kvmGmemFolioClearPrivate(folio: Folio): Errno | undefined {
        if (this.late === undefined) return super.kvmGmemFolioClearPrivate(folio);
        this.late.push(folio);
        return undefined;
      }
    },
  },
  {
    id: 'flushed-behind-the-lock',
    shortest: 4,
    profile: 'direct-map-rfc-v2',
    fault: 'lets another task run when a page is out of the direct map, and flushes the TLBs after that',
    machine: class extends SimulatorMachine {
      override flushTlbKernelRange(folio: Folio): void {
        this.handOver('folio_lock');
        super.flushTlbKernelRange(folio);
      }
    },
  },
  {
    id: 'vcpu-joins-without-locks',
    shortest: 7,
    profile: 'tdx-guest-memfd',
    fault: 'looks at the state of the TD, and then takes the lock of the vCPU alone: the TD may be finalized meanwhile',
    machine: host(
      class extends TdxMachine {
        override vcpuUnlockedIoctl(
          ...[kvm, id, run]: Parameters<TdxMachine['vcpuUnlockedIoctl']>
        ): ReturnType<TdxMachine['vcpuUnlockedIoctl']> {
          const vcpu = kvm.vcpus.get(id);
          if (vcpu === undefined) return 'EBADF';
          if (kvm.isDead) return 'EIO';
          if (kvm.hkid === undefined || kvm.state === 'runnable') return 'EINVAL';
          this.lock(vcpu.mutex);
          const error = run(vcpu);
          this.unlock(vcpu.mutex);
          return error;
        }
      },
    ),
  },
  ...SEV_RACE_FAULTS,
];
