/** What guests ask of KVM and the VMM, in the order in which these look at it. */
import { fails, ok, type Errno, type Outcome } from '../../../model/core/outcome.ts';
import { PAGE_MASK, PAGE_SHIFT, wrap64 } from '../../../model/core/abi.ts';
import type { Config } from '../../../model/core/profile.ts';
import type { Label } from '../../../model/core/state.ts';
import type { RunMap } from '../ranges.ts';
import { Bitmap } from './bitmap.ts';
import { GuestDonation, Structure } from './guest-donation.ts';
import { setPages, type Change, type Guest } from './guest.ts';
import { IntervalTree } from './interval-tree.ts';
import { isEntryValid, isHeaderValid, PSC_OPERATION, type PscBuffer, type PscEntry, type PscStatus } from './psc.ts';
import { RangeList } from './range-list.ts';
import { FRAMES, type StatusRecord } from './record.ts';

/** So many hypercalls the policy takes until its time begins anew. */
const TAKEN_AT_MOST = 8;
/** struct of the donation: a header of 16 bytes, and 16 for each entry. */
const ENTRY_BYTES = 16n;
/** Bit 4 of the attributes of KVM_HC_MAP_GPA_RANGE; bits 3 to 0 are the page size that the guest would like. */
const ENCRYPTED = 0x10n;
const RESERVED = ~0x1fn;

export const DISABLED: Outcome = { kind: 'status', status: 'KVM_EXIT_INTERNAL_ERROR' };
const pscError = (status: PscStatus): Outcome => ({ kind: 'status', status });

export type Pattern = 'same' | 'alternate' | 'huge';

/** The announcement number `index` of a flood: gpa, pages, attributes. */
const PATTERNS: Readonly<Record<Pattern, (index: number) => readonly [bigint, bigint, bigint]>> = {
  same: (index) => [0n, 1n, index % 2 === 0 ? 0n : ENCRYPTED],
  alternate: (index) => [BigInt(2 * index) << PAGE_SHIFT, 1n, 0n],
  huge: (index) => [0n, BigInt(FRAMES), index % 2 === 0 ? 0n : ENCRYPTED],
};

export abstract class Hypercalls {
  readonly guests = new Map<Label, Guest>();
  readonly outOfBounds: string[] = [];
  protected readonly config: Config;
  readonly onOutside = (what: string): void => {
    this.outOfBounds.push(what);
  };

  constructor(config: Config) {
    this.config = config;
  }

  /** The structure that the profile has the host keep. */
  newRecord({ bound, frames, pageTables }: Pick<Guest, 'bound' | 'frames' | 'pageTables'>): StatusRecord {
    const { features } = this.config.profile;
    if (features.includes('status-bitmap')) return this.newBitmap(frames);
    if (features.includes('status-list')) return this.newRangeList(bound);
    return features.includes('status-tree') ? this.newIntervalTree(bound) : this.newDonation(pageTables);
  }

  newBitmap(frames: number): Bitmap {
    return new Bitmap(frames);
  }
  newRangeList(bound: number): RangeList {
    return new RangeList(bound);
  }
  newIntervalTree(bound: number): IntervalTree {
    return new IntervalTree(bound);
  }
  newDonation(pageTables: RunMap<true>): GuestDonation {
    return new GuestDonation(pageTables);
  }

  /** KVM_HC_MAP_GPA_RANGE; with the donation the guest writes its structure, and makes no call. */
  announce(guest: Guest, gpa: bigint, pages: bigint, attributes: bigint): Outcome {
    const change = this.changeOf(gpa, pages, attributes);
    if (guest.record instanceof GuestDonation) {
      if (guest.isDisabled) return DISABLED;
      return change === undefined ? fails('EINVAL') : this.change(guest, change);
    }
    guest.work.calls++;
    return this.counted(guest, () => {
      const refusal = this.refusal(guest);
      if (refusal === 'ENOSYS' && change !== undefined) this.changeUnheard(guest, change);
      if (refusal !== undefined) return refusal === 'disabled' ? DISABLED : fails(refusal);
      return change === undefined ? fails('EINVAL') : this.change(guest, change);
    });
  }

  /** ____kvm_emulate_hypercall(), and behind it the VMM: undefined where the arguments are none. */
  changeOf(gpa: bigint, pages: bigint, attributes: bigint): Change | undefined {
    const start = gpa >> PAGE_SHIFT;
    const end = wrap64(start + pages);
    if ((gpa & PAGE_MASK) !== 0n || pages === 0n || end <= start) return undefined;
    if (end > BigInt(FRAMES) || (attributes & RESERVED) !== 0n) return undefined;
    return { start: Number(start), end: Number(end), shared: (attributes & ENCRYPTED) === 0n };
  }

  /** Why a hypercall is not looked at. */
  protected refusal(guest: Guest): Errno | 'disabled' | undefined {
    if (guest.isDisabled) return 'disabled';
    if (!guest.isEnabled) return 'ENOSYS';
    if (guest.policy === 'none' || ++guest.taken <= TAKEN_AT_MOST) return undefined;
    if (guest.policy === 'throttle') return 'EAGAIN';
    guest.isDisabled = true;
    return 'disabled';
  }

  /** The guest does as it said, and nobody knows. */
  protected changeUnheard(guest: Guest, change: Change): void {
    guest.hasSpoken = true;
    if (setPages(guest, change)) this.mark(guest);
  }

  protected change(guest: Guest, change: Change): Outcome {
    guest.hasSpoken = true;
    setPages(guest, change);
    this.note(guest, change);
    return ok();
  }

  note(guest: Guest, { start, end, shared }: Change): void {
    if (!guest.isMarked && !guest.record.note(start, end, shared)) this.mark(guest);
  }

  /** What was recorded is of no use any more. */
  mark(guest: Guest): void {
    if (guest.isMarked) return;
    guest.isMarked = true;
    guest.record.drop();
  }

  flood(guest: Guest, pattern: Pattern, count: number): Outcome {
    if (guest.isDisabled) return DISABLED;
    for (let index = 0; index < count; index++)
      if (this.announce(guest, ...PATTERNS[pattern](index)).kind !== 'ok') return ok(BigInt(index));
    return ok(BigInt(count));
  }

  /** snp_begin_psc() */
  psc(guest: Guest, buffer: PscBuffer): Outcome {
    return this.counted(guest, () => {
      const refusal = this.refusal(guest);
      if (refusal === 'disabled') return DISABLED;
      if (refusal !== undefined) return pscError('VMGEXIT_PSC_ERROR_GENERIC');
      const header = this.readHeader(buffer);
      if (header === undefined) return pscError('VMGEXIT_PSC_ERROR_INVALID_HDR');
      return this.doPsc(guest, buffer, header);
    });
  }

  /** The header is read once, and what was read is used. */
  readHeader(buffer: PscBuffer): { readonly current: number; readonly end: number } | undefined {
    const header = buffer.readHeader();
    return isHeaderValid(header) ? header : undefined;
  }

  /** snp_do_psc(), which asks user space once for neighbours that fit; here each entry is a call of its own. */
  private doPsc(guest: Guest, buffer: PscBuffer, { current, end }: { current: number; end: number }): Outcome {
    for (let index = current; index <= end; index++) {
      guest.work.calls++;
      const entry = buffer.readEntry(index);
      if (!isEntryValid(entry)) return pscError('VMGEXIT_PSC_ERROR_INVALID_ENTRY');
      this.applyEntry(guest, entry);
    }
    return ok();
  }

  /** What is left of the entry. Other operations than these two are passed over. */
  protected applyEntry(guest: Guest, { currentPage, gfn, operation, pages }: PscEntry): void {
    const shared = operation === PSC_OPERATION.SHARED;
    if (currentPage === pages || !(shared || operation === PSC_OPERATION.PRIVATE)) return;
    this.change(guest, { start: gfn + currentPage, end: gfn + pages, shared });
  }

  /** The guest says where its structure is, and has it ready. */
  donate(guest: Guest, gpa: bigint, entries: bigint): Outcome {
    guest.work.calls++;
    const { record } = guest;
    if (!(record instanceof GuestDonation)) throw new Error('a donation is taken only where it is the record');
    if (guest.isDisabled) return DISABLED;
    if (!guest.isEnabled) return fails('ENOSYS');
    if (record.structure !== undefined) return this.refuseSecond(guest);
    const isInside = gpa + ENTRY_BYTES * (entries + 1n) <= BigInt(guest.frames) << PAGE_SHIFT;
    if ((gpa & PAGE_MASK) !== 0n || entries === 0n || !isInside) return fails('EINVAL');
    guest.hasSpoken = true;
    record.structure = new Structure(Number(entries), this.onOutside);
    record.note(0);
    return ok();
  }

  /** Nobody has reason to donate twice: all that is left for a policy to look at. */
  protected refuseSecond(guest: Guest): Outcome {
    if (guest.policy !== 'disable') return fails('EEXIST');
    guest.isDisabled = true;
    return DISABLED;
  }

  private counted(guest: Guest, run: () => Outcome): Outcome {
    const before = guest.record.steps;
    const outcome = run();
    guest.work.steps += guest.record.steps - before;
    return outcome;
  }
}
