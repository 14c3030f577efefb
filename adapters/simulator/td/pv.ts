/**
 * Protected virtualization of s390: the ultravisor gives the host a page only when it has encrypted it, and the guest only what
 * nobody has changed since. Source: arch/s390/kernel/uv.c, arch/s390/mm/fault.c, arch/s390/kvm/s390/s390.c,
 * arch/s390/kvm/s390/pv.c.
 */
import type { Facts } from '../../../model/core/facts.ts';
import { ok, type Errno, type Outcome } from '../../../model/core/outcome.ts';
import type { Label } from '../../../model/core/state.ts';
import type { HostWrite, Word } from './host-mm.ts';
import { Launches, type LaunchedGuest } from './launch.ts';
import { LINES, type Width } from './memory-controller.ts';
import type { World } from './guests.ts';

/** What the ultravisor knows of a guest frame: what is in it, and the frame that it is in unless it is exported. */
interface SecurePage {
  readonly vm: Label;
  readonly gfn: number;
  readonly plain: bigint[];
  frame: number | undefined;
}

const ZEROS: readonly bigint[] = LINES.map(() => 0n);
const SIGSEGV: Outcome = { kind: 'signal', signal: 'SIGSEGV' };

export class PvMachine extends Launches {
  private readonly contents = new Map<number, Exclude<Word, 'poison'>[]>();
  private readonly pages = new Map<string, SecurePage>();

  protected override powerOff(): void {
    super.powerOff();
    this.contents.clear();
    this.pages.clear();
  }

  /** do_secure_storage_access(): the host is given the page, encrypted. */
  protected override cpuLoad(frame: number, line: number): Word {
    this.archMakeFolioAccessible(frame);
    return this.wordsOf(frame)[line] ?? 0n;
  }
  protected override cpuStore(frame: number, line: number, value: bigint): void {
    this.archMakeFolioAccessible(frame);
    this.wordsOf(frame)[line] = value;
  }
  protected override deviceLoad(frame: number, line: number): Word | Errno {
    return this.isProtected(frame) ? 'EIO' : this.cpuLoad(frame, line);
  }
  protected override deviceStore(frame: number, line: number, value: bigint): Errno | undefined {
    if (this.isProtected(frame)) return 'EIO';
    this.cpuStore(frame, line, value);
    return undefined;
  }
  protected override isGuestPage(frame: number): boolean {
    return this.secureIn(frame) !== undefined;
  }
  protected override isUnmovable(): boolean {
    return false;
  }

  protected override fill(frame: number, words: readonly Word[]): void {
    this.contents.set(
      frame,
      words.map((word) => (word === 'poison' ? 0n : word)),
    );
  }

  override pinUserPages(...args: Parameters<Launches['pinUserPages']>): number | 'EFAULT' {
    const frame = super.pinUserPages(...args);
    if (typeof frame === 'number') this.archMakeFolioAccessible(frame);
    return frame;
  }

  override hostStore(
    frame: number,
    line: number,
    value: bigint,
    width: Width,
    via: HostWrite['via'],
  ): Errno | undefined {
    if (via !== 'dma') this.archMakeFolioAccessible(frame);
    if (via === 'dma' && this.isProtected(frame)) return 'EIO';
    return super.hostStore(frame, line, value, width, via);
  }

  /** arch_make_folio_accessible(), uv_convert_from_secure() */
  archMakeFolioAccessible(frame: number): void {
    const page = this.secureIn(frame);
    if (page === undefined) return;
    page.frame = undefined;
    this.contents.set(
      frame,
      LINES.map(() => 'ciphertext'),
    );
  }

  /** kvm_s390_pv_convert_to_secure(): it fails where the hash of what was exported is another one. */
  kvmS390PvConvertToSecure(guest: LaunchedGuest, gfn: number): SecurePage | undefined {
    const frame = this.backing(guest, gfn);
    const page = this.pages.get(keyOf(guest, gfn)) ?? this.newPage(guest, gfn, ZEROS);
    if (page.frame !== undefined) return page;
    if (!this.isUnchanged(frame)) return undefined;
    page.frame = frame;
    return page;
  }

  isUnchanged(frame: number): boolean {
    return this.wordsOf(frame).every((word) => word === 'ciphertext');
  }

  private newPage(guest: LaunchedGuest, gfn: number, plain: readonly bigint[]): SecurePage {
    const page = { vm: guest.label, gfn, plain: [...plain], frame: this.backing(guest, gfn) };
    this.pages.set(keyOf(guest, gfn), page);
    return page;
  }

  private secureIn(frame: number): SecurePage | undefined {
    return [...this.pages.values()].find((page) => page.frame === frame);
  }

  /** Secure, or encrypted for the host. */
  isProtected(frame: number): boolean {
    if (this.secureIn(frame) !== undefined) return true;
    return [...this.guests.values()].some((guest) =>
      guest.process.pages.some((page, gfn) => page.frame === frame && this.pages.has(keyOf(guest, gfn))),
    );
  }

  private wordsOf(frame: number): Exclude<Word, 'poison'>[] {
    const words = this.contents.get(frame) ?? [...ZEROS];
    this.contents.set(frame, words);
    return words;
  }

  protected override start(guest: LaunchedGuest): undefined {
    guest.key = 0;
  }

  /** kvm_s390_pv_unpack() */
  protected override launchUpdate(guest: LaunchedGuest, gfn: number, value: bigint): undefined {
    this.newPage(
      guest,
      gfn,
      LINES.map(() => value),
    );
  }

  /** The guest calls the ultravisor: set page shared, remove shared. */
  protected override changeWorld(guest: LaunchedGuest, gfn: number, isPrivate: boolean): Outcome {
    // Nobody but a guest that runs under the ultravisor can call it.
    if (guest.state === 'uninitialized') return ok();
    if (isPrivate) {
      this.newPage(guest, gfn, this.plainOf(this.backing(guest, gfn)));
      return ok();
    }
    if (!this.pages.has(keyOf(guest, gfn))) return ok();
    const page = this.kvmS390PvConvertToSecure(guest, gfn);
    if (page === undefined) return SIGSEGV;
    this.pages.delete(keyOf(guest, gfn));
    this.contents.set(this.backing(guest, gfn), [...page.plain]);
    return ok();
  }

  /** What is in a page that is the host's as well. */
  private plainOf(frame: number): bigint[] {
    return this.wordsOf(frame).map((word) => (word === 'ciphertext' ? 0n : word));
  }

  override runLoad(guest: LaunchedGuest, gfn: number, line: number, _: World): Outcome {
    if (guest.private[gfn] !== true) return this.sharedLoad(this.backing(guest, gfn), line);
    const page = this.kvmS390PvConvertToSecure(guest, gfn);
    return page === undefined ? SIGSEGV : ok(page.plain[line] ?? 0n);
  }

  private sharedLoad(frame: number, line: number): Outcome {
    const word = this.wordsOf(frame)[line] ?? 0n;
    return word === 'ciphertext' ? { kind: 'ciphertext' } : ok(word);
  }

  override runStore(guest: LaunchedGuest, gfn: number, line: number, _: World, __: Width, value: bigint): Outcome {
    if (guest.private[gfn] !== true) {
      this.wordsOf(this.backing(guest, gfn))[line] = value;
      return ok();
    }
    const page = this.kvmS390PvConvertToSecure(guest, gfn);
    if (page === undefined) return SIGSEGV;
    page.plain[line] = value;
    return ok();
  }

  /** uv_destroy_folio(): cleared, not exported. */
  protected override decommission(guest: LaunchedGuest): void {
    guest.process.pages.forEach((page, gfn) => {
      if (this.pages.delete(keyOf(guest, gfn)) && page.frame !== undefined) this.uvDestroyFolio(page.frame);
    });
  }

  uvDestroyFolio(frame: number): void {
    this.contents.set(frame, [...ZEROS]);
  }

  override facts(): Facts {
    return {
      ...this.factsOfHost(),
      tdPages: [...this.pages.values()].flatMap(({ vm, gfn, frame }) => this.pageFact(vm, gfn, frame)),
      stageTwo: [],
      lines: [],
      keys: [],
    };
  }

  /** An exported page is where the host has put it: in swap it is in no frame. Of one that was changed nothing is left. */
  private pageFact(vm: Label, gfn: number, secureIn: number | undefined): Required<Facts>['tdPages'] {
    if (secureIn !== undefined) return [{ vm, gfn, frame: secureIn, key: 0, state: 'mapped' }];
    const frame = this.guests.get(vm)?.process.pages[gfn]?.frame;
    if (frame === undefined || !this.isUnchanged(frame)) return [];
    return [{ vm, gfn, frame, key: 0, state: 'exported' }];
  }
}

const keyOf = ({ label }: LaunchedGuest, gfn: number): string => `${label}:${gfn}`;
