import { DEFAULT_PROFILE } from '../../model/core/profile.ts';
import { machineTarget } from '../simulator/index.ts';
import { DIRECT_MAP_FAILURES } from './direct-map-failures.ts';
import { DIRECT_MAP_FAULTS } from './direct-map.ts';
import type { Fault } from './fault.ts';
import { GUEST_MEMFD_FAULTS } from './guest-memfd.ts';
import { HVA_CACHE_FAULTS } from './hva-cache.ts';
import { HYPERCALL_FAULTS } from './hypercall.ts';
import { VMM_FAULTS } from './machine-check-vmm.ts';
import { MACHINE_CHECK_FAULTS } from './machine-check.ts';
import type { Mutant } from './mutant.ts';
import { PAGE_STATUS_FAULTS } from './page-status.ts';
import { REVOCATION_FAULTS } from './revocation.ts';
import { SEV_FAULTS } from './sev.ts';
import { TD_FAULTS } from './td.ts';

/** Mutants of machines that are made wrong by hand. */
export const handWritten = (faults: readonly Fault[]): readonly Mutant[] =>
  faults.map(({ id, fault, shortest, machine: Machine, profile = DEFAULT_PROFILE }) => ({
    id,
    origin: 'hand-written',
    fault,
    shortest,
    profile,
    target: machineTarget(`mutant:${id}`, (config) => new Machine(config)),
  }));

export const HAND_WRITTEN = handWritten([
  ...GUEST_MEMFD_FAULTS,
  ...DIRECT_MAP_FAULTS,
  ...DIRECT_MAP_FAILURES,
  ...REVOCATION_FAULTS,
  ...HVA_CACHE_FAULTS,
  ...TD_FAULTS,
  ...SEV_FAULTS,
  ...PAGE_STATUS_FAULTS,
  ...HYPERCALL_FAULTS,
  ...VMM_FAULTS,
  ...MACHINE_CHECK_FAULTS,
]);
