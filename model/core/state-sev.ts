/** What a machine knows of SEV guests and their keys. See docs/adr/0012-sev.md. */
import type { Address, Label } from './label.ts';

export interface SevVcpu {
  /** Its descriptor is open. */
  readonly isOpen: boolean;
  /** Its state is encrypted. */
  readonly isEncrypted: boolean;
}

/** A registered region, with the pages of the arena that it pins. */
export interface SevRegion {
  readonly addr: Address;
  readonly size: bigint;
  readonly start: number;
  readonly end: number;
}

/** One struct kvm. It is there as long as something refers to it. */
export interface SevVm {
  readonly type: 'default' | 'sev' | 'sev-es' | 'snp';
  readonly isOpen: boolean;
  readonly vcpus: ReadonlyMap<string, SevVcpu>;
  /** Its context was moved away. */
  readonly isDead: boolean;
  /** KVM_SEV_INIT2 is outstanding. */
  readonly needsInit: boolean;
  readonly isActive: boolean;
  readonly isEs: boolean;
  readonly isSnp: boolean;
  readonly asid: number | undefined;
  /** The firmware's context. */
  readonly context: number | undefined;
  /** KVM remembers a descriptor of /dev/sev. */
  readonly hasDevice: boolean;
  /** The VM that it mirrors. */
  readonly owner: Label | undefined;
  readonly regions: readonly SevRegion[];
  /** Slots on files, by guest frame; a file that was closed is undefined. */
  readonly slots: ReadonlyMap<string, Label | undefined>;
}

/** A context of the firmware, with the state that GUEST_STATUS tells. */
export interface SevContext {
  readonly state: number;
}

/** A page that was written under a private key. A word that is not known tells nothing. */
export interface SevPage {
  readonly word: bigint | undefined;
  readonly context: number;
}

export type SevFailure = 'df-flush' | 'launch-start' | 'activate' | 'decommission';

export interface SevMachine {
  readonly vms: ReadonlyMap<Label, SevVm>;
  /** Files of guest memory that are open. */
  readonly files: ReadonlyMap<Label, { readonly vm: Label; readonly inode: Label }>;
  readonly contexts: ReadonlyMap<number, SevContext>;
  readonly nextContext: number;
  /** ASIDs that were given back, and may have lines in caches. */
  readonly reclaim: ReadonlySet<number>;
  /** ASIDs that were not got back, and whose they were. */
  readonly leaked: ReadonlyMap<number, Label>;
  /** By the number of a page of the arena, or the label of an inode of one page. */
  readonly pages: ReadonlyMap<string, SevPage>;
  /** Commands of the firmware of which the next fails. */
  readonly failing: ReadonlySet<SevFailure>;
}

export const FRESH_SEV_MACHINE: SevMachine = {
  vms: new Map(),
  files: new Map(),
  contexts: new Map(),
  nextContext: 1,
  reclaim: new Set(),
  leaked: new Map(),
  pages: new Map(),
  failing: new Set(),
};
