/** `gmem-conformance/adapter`: all that the author of an adapter needs. */
export {
  ALL_CAPABILITIES,
  CAPABILITIES,
  UnavailableError,
  type Capability,
  type KernelIdentity,
  type Observed,
  type Target,
} from './adapter.ts';
export type { Command } from '../model/catalogue.ts';
export {
  ATTRIBUTE_PRIVATE,
  CAP,
  FALLOC,
  GMEM_FLAG,
  KVM_MEM,
  PAGE_SHIFT,
  PAGE_SIZE,
  VM_TYPE,
  WORD_BYTES,
} from '../model/core/abi.ts';
export type * from '../model/core/facts.ts';
export { fails, ok, type Errno, type Observation, type Outcome } from '../model/core/outcome.ts';
export { FULL_MACHINE, type Machine, type Profile } from '../model/core/profile.ts';
export type { AnyCommand } from '../model/core/specification.ts';
export {
  ARENA,
  ARENA_PAGES,
  DEVICE,
  GUARD_PAGES,
  NO_FD,
  OTHER,
  type Address,
  type Label,
} from '../model/core/state.ts';
