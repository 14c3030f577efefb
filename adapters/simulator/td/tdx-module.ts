/**
 * The TDX module: it owns the pages of TDs by a table of its own (PAMT), and refuses what comes out of order. Functions are
 * named after its calls. Source: Intel TDX Module 1.5, src/vmm_dispatcher/api_calls, src/td_dispatcher.
 */
import { LINES, type Loaded, type MemoryController, type Width } from './memory-controller.ts';

/** A status code without the operand that it speaks of. */
export type Status = 'TDX_SUCCESS' | `TDX_${Uppercase<string>}`;

/** Key ownership table: what becomes of a HKID. */
interface KotEntry {
  state: 'free' | 'assigned' | 'flushed';
  /** Packages of which caches may hold lines under it: there is one package. */
  isWriteBackDue: boolean;
}

/** An entry of S-EPT. */
export interface SeptEntry {
  state: 'pending' | 'mapped';
  isBlocked: boolean;
  readonly frame: number;
  /** The epoch of the TD when it was blocked. */
  blockedAt: number;
}

/** TDR and TDCS: what the module remembers of a TD. */
export interface Td {
  readonly hkid: number;
  lifecycle: 'keys-configured' | 'blocked' | 'teardown';
  opState: 'initialized' | 'runnable';
  isFatal: boolean;
  epoch: number;
  /** Pages besides the root page. */
  children: number;
  vcpus: number;
  associated: number;
  readonly sept: Map<number, SeptEntry>;
}

type PamtEntry =
  | { readonly type: 'TDR'; readonly td: Td }
  | { readonly type: 'TDCX' | 'TDVPR' | 'REG'; readonly td: Td; isAssociated?: boolean };

export const HKIDS: readonly number[] = [1, 2];

export class TdxModule {
  private readonly memory: MemoryController;
  readonly pamt = new Map<number, PamtEntry>();
  private readonly kot = new Map<number, KotEntry>();
  /** So many of the next calls that take a lock which a vCPU may hold find it taken. */
  busy = 0;

  constructor(memory: MemoryController) {
    this.memory = memory;
  }

  reset(): void {
    this.pamt.clear();
    this.kot.clear();
    this.busy = 0;
  }

  /** The TD whose root page it is. */
  tdAt(tdr: number | undefined): Td | undefined {
    const entry = tdr === undefined ? undefined : this.pamt.get(tdr);
    return entry?.type === 'TDR' ? entry.td : undefined;
  }

  /** TDH.MNG.CREATE, TDH.MNG.KEY.CONFIG, TDH.MNG.ADDCX, TDH.MNG.INIT */
  mngInit(tdr: number, tdcs: number, hkid: number): Status {
    if ((this.kot.get(hkid)?.state ?? 'free') !== 'free') return 'TDX_HKID_NOT_FREE';
    this.kot.set(hkid, { state: 'assigned', isWriteBackDue: false });
    const td: Td = {
      hkid,
      lifecycle: 'keys-configured',
      opState: 'initialized',
      isFatal: false,
      epoch: 1,
      children: 0,
      vcpus: 0,
      associated: 0,
      sept: new Map(),
    };
    this.pamt.set(tdr, { type: 'TDR', td });
    this.initPage(tdr, hkid);
    this.give(td, tdcs, 'TDCX');
    return 'TDX_SUCCESS';
  }

  /** TDH.VP.CREATE, TDH.VP.ADDCX, TDH.VP.INIT */
  vpInit(tdr: number | undefined, tdvpr: number): Status {
    const td = this.checkState(this.tdAt(tdr));
    if (typeof td === 'string') return td;
    if (td.opState !== 'initialized') return 'TDX_OP_STATE_INCORRECT';
    this.give(td, tdvpr, 'TDVPR');
    td.vcpus++;
    this.associate(tdvpr);
    return 'TDX_SUCCESS';
  }

  /** TDH.MEM.PAGE.ADD */
  memPageAdd(tdr: number | undefined, gfn: number, frame: number, value: bigint): Status {
    const td = this.checkState(this.tdAt(tdr));
    if (typeof td === 'string') return td;
    if (td.opState !== 'initialized') return 'TDX_OP_STATE_INCORRECT';
    if (td.sept.has(gfn)) return 'TDX_EPT_ENTRY_STATE_INCORRECT';
    this.map(td, gfn, frame, 'mapped');
    for (const line of LINES) this.memory.store(frame, line, td.hkid, value, 'line');
    return 'TDX_SUCCESS';
  }

  /** TDH.MEM.PAGE.AUG */
  memPageAug(tdr: number | undefined, gfn: number, frame: number): Status {
    const td = this.checkState(this.tdAt(tdr));
    if (typeof td === 'string') return td;
    if (td.opState !== 'runnable') return 'TDX_OP_STATE_INCORRECT';
    if (td.sept.has(gfn)) return 'TDX_EPT_ENTRY_STATE_INCORRECT';
    this.map(td, gfn, frame, 'pending');
    return 'TDX_SUCCESS';
  }

  /** TDH.MR.FINALIZE */
  mrFinalize(tdr: number | undefined): Status {
    if (this.isBusy()) return 'TDX_OPERAND_BUSY';
    const td = this.checkState(this.tdAt(tdr));
    if (typeof td === 'string') return td;
    if (td.opState !== 'initialized') return 'TDX_OP_STATE_INCORRECT';
    if (td.vcpus === 0) return 'TDX_NO_VCPUS';
    td.opState = 'runnable';
    return 'TDX_SUCCESS';
  }

  /** TDH.MEM.RANGE.BLOCK, of one page */
  memRangeBlock(tdr: number | undefined, gfn: number): Status {
    if (this.isBusy()) return 'TDX_OPERAND_BUSY';
    const td = this.checkState(this.tdAt(tdr));
    if (typeof td === 'string') return td;
    const entry = td.sept.get(gfn);
    if (entry === undefined) return 'TDX_EPT_ENTRY_STATE_INCORRECT';
    if (entry.isBlocked) return 'TDX_GPA_RANGE_ALREADY_BLOCKED';
    entry.isBlocked = true;
    entry.blockedAt = td.epoch;
    return 'TDX_SUCCESS';
  }

  /** TDH.MEM.TRACK. No vCPU is in the guest where the host runs. */
  memTrack(tdr: number | undefined): Status {
    if (this.isBusy()) return 'TDX_OPERAND_BUSY';
    const td = this.checkState(this.tdAt(tdr));
    if (typeof td === 'string') return td;
    td.epoch++;
    return 'TDX_SUCCESS';
  }

  /** TDH.MEM.PAGE.REMOVE. Nobody can have a translation to forget before the TD runs. */
  memPageRemove(tdr: number | undefined, gfn: number): Status {
    if (this.isBusy()) return 'TDX_OPERAND_BUSY';
    const td = this.checkState(this.tdAt(tdr));
    if (typeof td === 'string') return td;
    const entry = td.sept.get(gfn);
    if (entry === undefined) return 'TDX_EPT_ENTRY_STATE_INCORRECT';
    if (td.opState === 'runnable') {
      if (!entry.isBlocked) return 'TDX_GPA_RANGE_NOT_BLOCKED';
      if (entry.blockedAt >= td.epoch) return 'TDX_TLB_TRACKING_NOT_DONE';
    }
    td.sept.delete(gfn);
    this.take(td, entry.frame);
    return 'TDX_SUCCESS';
  }

  /** TDH.VP.ENTER: what it checks before the guest runs. */
  vpEnter(tdvpr: number | undefined): Status {
    const entry = tdvpr === undefined ? undefined : this.pamt.get(tdvpr);
    if (tdvpr === undefined || entry?.type !== 'TDVPR') return 'TDX_PAGE_METADATA_INCORRECT';
    const td = this.checkState(entry.td);
    if (typeof td === 'string') return td;
    if (td.isFatal) return 'TDX_TD_FATAL';
    if (td.opState !== 'runnable') return 'TDX_OP_STATE_INCORRECT';
    this.associate(tdvpr);
    return 'TDX_SUCCESS';
  }

  /** TDG.MEM.PAGE.ACCEPT, of a page that is there and not blocked */
  memPageAccept({ hkid }: Td, entry: SeptEntry): Status {
    if (entry.state === 'mapped') return 'TDX_PAGE_ALREADY_ACCEPTED';
    this.initPage(entry.frame, hkid);
    entry.state = 'mapped';
    return 'TDX_SUCCESS';
  }

  guestLoad({ hkid }: Td, { frame }: SeptEntry, line: number): Loaded {
    return this.memory.load(frame, line, hkid);
  }

  guestStore({ hkid }: Td, { frame }: SeptEntry, line: number, value: bigint, width: Width): void {
    this.memory.store(frame, line, hkid, value, width);
  }

  /** A machine check in the guest: TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE. */
  machineCheck(td: Td): void {
    td.isFatal = true;
  }

  /** TDH.VP.FLUSH */
  vpFlush(tdvpr: number | undefined): Status {
    const entry = tdvpr === undefined ? undefined : this.pamt.get(tdvpr);
    if (entry?.type !== 'TDVPR') return 'TDX_PAGE_METADATA_INCORRECT';
    if (entry.td.lifecycle !== 'keys-configured') return 'TDX_TD_KEYS_NOT_CONFIGURED';
    if (entry.isAssociated !== true) return 'TDX_VCPU_NOT_ASSOCIATED';
    entry.isAssociated = false;
    entry.td.associated--;
    return 'TDX_SUCCESS';
  }

  /** TDH.MNG.VPFLUSHDONE */
  mngVpflushdone(tdr: number | undefined): Status {
    if (this.isBusy()) return 'TDX_OPERAND_BUSY';
    const td = this.tdAt(tdr);
    if (td === undefined) return 'TDX_PAGE_METADATA_INCORRECT';
    if (td.lifecycle !== 'keys-configured') return 'TDX_LIFECYCLE_STATE_INCORRECT';
    if (td.associated > 0) return 'TDX_FLUSHVP_NOT_DONE';
    td.lifecycle = 'blocked';
    this.kot.set(td.hkid, { state: 'flushed', isWriteBackDue: true });
    return 'TDX_SUCCESS';
  }

  /** TDH.PHYMEM.CACHE.WB */
  phymemCacheWb(): Status {
    const flushed = [...this.kot].filter(([, { state }]) => state === 'flushed');
    if (flushed.length === 0) return 'TDX_NO_HKID_READY_TO_WBCACHE';
    for (const [hkid, entry] of flushed) {
      entry.isWriteBackDue = false;
      this.memory.writeBack(hkid);
    }
    return 'TDX_SUCCESS';
  }

  /** TDH.PHYMEM.PAGE.WBINVD */
  phymemPageWbinvd(hkid: number, frame: number): Status {
    if (this.pamt.has(frame)) return 'TDX_PAGE_METADATA_INCORRECT';
    this.memory.writeBack(hkid, frame);
    return 'TDX_SUCCESS';
  }

  /** TDH.MNG.KEY.FREEID */
  mngKeyFreeid(tdr: number | undefined): Status {
    const td = this.tdAt(tdr);
    if (td === undefined) return 'TDX_PAGE_METADATA_INCORRECT';
    if (td.lifecycle !== 'blocked') return 'TDX_LIFECYCLE_STATE_INCORRECT';
    if (this.kot.get(td.hkid)?.isWriteBackDue === true) return 'TDX_WBCACHE_NOT_COMPLETE';
    this.kot.delete(td.hkid);
    td.lifecycle = 'teardown';
    return 'TDX_SUCCESS';
  }

  /** TDH.PHYMEM.PAGE.RECLAIM */
  phymemPageReclaim(frame: number | undefined): Status {
    const entry = frame === undefined ? undefined : this.pamt.get(frame);
    if (frame === undefined || entry === undefined) return 'TDX_PAGE_METADATA_INCORRECT';
    if (entry.td.lifecycle !== 'teardown') return 'TDX_LIFECYCLE_STATE_INCORRECT';
    if (entry.type !== 'TDR') this.take(entry.td, frame);
    else if (entry.td.children > 0) return 'TDX_TD_ASSOCIATED_PAGES_EXIST';
    else this.pamt.delete(frame);
    return 'TDX_SUCCESS';
  }

  /** check_state_map_tdcs_and_lock(): the TD, or why nothing can be done to it. */
  private checkState(td: Td | undefined): Td | Status {
    if (td === undefined) return 'TDX_PAGE_METADATA_INCORRECT';
    return td.lifecycle === 'keys-configured' ? td : 'TDX_TD_KEYS_NOT_CONFIGURED';
  }

  private isBusy(): boolean {
    if (this.busy === 0) return false;
    this.busy--;
    return true;
  }

  private map(td: Td, gfn: number, frame: number, state: 'pending' | 'mapped'): void {
    this.give(td, frame, 'REG');
    td.sept.set(gfn, { state, isBlocked: false, frame, blockedAt: 0 });
  }

  private give(td: Td, frame: number, type: 'TDCX' | 'TDVPR' | 'REG'): void {
    this.pamt.set(frame, { type, td });
    this.initPage(frame, td.hkid);
    td.children++;
  }

  private take(td: Td, frame: number): void {
    this.pamt.delete(frame);
    td.children--;
  }

  private associate(tdvpr: number): void {
    const entry = this.pamt.get(tdvpr);
    if (entry?.type !== 'TDVPR' || entry.isAssociated === true) return;
    entry.isAssociated = true;
    entry.td.associated++;
  }

  /** The lines are the TD's from now on. */
  private initPage(frame: number, hkid: number): void {
    for (const line of LINES) this.memory.store(frame, line, hkid, 0n, 'line');
  }

  /** Whether the page belongs to a TD. */
  owns(frame: number): boolean {
    return this.pamt.has(frame);
  }

  /** TDs with a root page. */
  tds(): Td[] {
    return [...this.pamt.values()].flatMap((entry) => (entry.type === 'TDR' ? [entry.td] : []));
  }
}
