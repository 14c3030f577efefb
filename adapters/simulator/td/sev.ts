/**
 * SEV: what is private is a bit in page tables of the guest, and the VMM maps all of its memory without it. Source:
 * arch/x86/kvm/svm/sev.c; Dave Hansen in the thread of RFC v1 "KVM: unmap guest memory using poisoned pages".
 */
import type { Facts } from '../../../model/core/facts.ts';
import { ok, type Errno, type Outcome } from '../../../model/core/outcome.ts';
import type { Label } from '../../../model/core/state.ts';
import { wordOutcome, type World } from './guests.ts';
import type { Process, Word } from './host-mm.ts';
import { KeyedCache } from './keyed-cache.ts';
import { Launches, type LaunchedGuest } from './launch.ts';
import { LINES, type Width } from './memory-controller.ts';

const ASIDS: readonly number[] = [1, 2];
const HOST_KEY = 0;

export class SevMachine extends Launches {
  readonly cache = new KeyedCache();
  /** Guest frames with something of the guest in them, by frame. */
  readonly encrypted = new Map<number, { readonly vm: Label; readonly gfn: number; readonly key: number }>();
  /** sev_asid_bitmap */
  readonly asids = new Map<number, Label>();

  protected override powerOff(): void {
    super.powerOff();
    this.cache.reset();
    this.encrypted.clear();
    this.asids.clear();
  }

  protected override cpuLoad(frame: number, line: number): Word {
    return this.cache.load(frame, line, HOST_KEY);
  }
  protected override cpuStore(frame: number, line: number, value: bigint): void {
    this.cache.store(frame, line, HOST_KEY, value);
  }
  protected override deviceLoad(frame: number, line: number): Word {
    return this.cpuLoad(frame, line);
  }
  protected override deviceStore(frame: number, line: number, value: bigint): undefined {
    this.cpuStore(frame, line, value);
  }
  protected override isGuestPage(frame: number): boolean {
    return this.encrypted.has(frame);
  }

  /** sev_pin_memory(): ciphertext depends on where it is. */
  protected override isUnmovable({ label }: Process): boolean {
    return this.guests.get(label)?.key !== undefined;
  }

  override allocZeroedPage(): number {
    const frame = super.allocZeroedPage();
    this.cache.clflush(frame);
    return frame;
  }

  /** sev_asid_new(), sev_mem_enc_register_region() */
  protected override start(guest: LaunchedGuest): Errno | undefined {
    const asid = ASIDS.find((each) => !this.asids.has(each));
    if (asid === undefined) return 'EBUSY';
    this.asids.set(asid, guest.label);
    guest.key = asid;
    for (const page of guest.process.pages) this.sevClflushPages(this.doSwapPage(page));
    return undefined;
  }

  /** sev_launch_update_data() */
  protected override launchUpdate(guest: LaunchedGuest, gfn: number, value: bigint): undefined {
    const frame = this.backing(guest, gfn);
    for (const line of LINES) this.cpuStore(frame, line, value);
    this.sevClflushPages(frame);
    for (const line of LINES) this.cache.write(frame, line, this.keyOf(guest), value);
    this.noteEncrypted(guest, gfn, frame);
  }

  /** sev_clflush_pages() */
  sevClflushPages(frame: number): void {
    this.cache.clflush(frame);
  }

  /** The guest changes the bit in its own page table, and tells KVM. Nothing moves. */
  protected override changeWorld(guest: LaunchedGuest, gfn: number): Outcome {
    const { frame } = this.pageAt(guest.process, gfn);
    if (frame !== undefined) this.encrypted.delete(frame);
    return ok();
  }

  override runLoad(guest: LaunchedGuest, gfn: number, line: number, world: World): Outcome {
    return wordOutcome(this.cache.load(this.backing(guest, gfn), line, this.keyIn(guest, world)));
  }

  override runStore(guest: LaunchedGuest, gfn: number, line: number, world: World, _: Width, value: bigint): Outcome {
    const frame = this.backing(guest, gfn);
    this.cache.store(frame, line, this.keyIn(guest, world), value);
    if (world === 'private' && guest.private[gfn] === true) this.noteEncrypted(guest, gfn, frame);
    return ok();
  }

  private keyIn(guest: LaunchedGuest, world: World): number {
    return world === 'private' ? this.keyOf(guest) : HOST_KEY;
  }

  keyOf({ key }: LaunchedGuest): number {
    return key ?? HOST_KEY;
  }

  private noteEncrypted(guest: LaunchedGuest, gfn: number, frame: number): void {
    this.encrypted.set(frame, { vm: guest.label, gfn, key: this.keyOf(guest) });
  }

  cacheEvict(guest: LaunchedGuest, gfn: number, line: number, last: World): Outcome {
    this.cache.evict(this.backing(guest, gfn), line, this.keyIn(guest, last));
    return ok();
  }

  /** sev_vm_destroy(), sev_asid_free() */
  protected override decommission(guest: LaunchedGuest): void {
    for (const { frame } of guest.process.pages) if (frame !== undefined) this.wbinvd(frame);
    for (const [frame, { vm }] of this.encrypted) if (vm === guest.label) this.encrypted.delete(frame);
    if (guest.key !== undefined) this.asids.delete(guest.key);
  }

  /** wbinvd_on_all_cpus(), as far as a page is concerned */
  wbinvd(frame: number): void {
    this.cache.clflush(frame);
  }

  override facts(): Facts {
    return {
      ...this.factsOfHost(),
      tdPages: [...this.encrypted].map(([frame, page]) => ({ ...page, frame, state: 'mapped' })),
      stageTwo: [],
      lines: [],
      keys: ASIDS.map((key) => {
        const vm = this.asids.get(key);
        const flushed = !this.cache.holds(key);
        return vm === undefined ? { key, state: 'free', flushed } : { key, state: 'assigned', vm, flushed };
      }),
    };
  }
}
