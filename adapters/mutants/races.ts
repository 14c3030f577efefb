/** The simulator with one mistake each that shows only where two commands run at the same time. */
import { SimulatorMachine } from '../simulator/index.ts';
import type { Fault } from './hand-written.ts';

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
];
