/**
 * What a kernel does about a page that failed, host and guest alike: struct page, page tables that show it, memory_failure()
 * by kind of page, unpoison_memory(). Source: mm/memory-failure.c, mm/rmap.c, mm/page_alloc.c,
 * arch/x86/kernel/cpu/mce/core.c.
 */
import { OneToOneMap } from './one-to-one.ts';

/** An entry of a page table of user space. `marker` is UFFDIO_POISON's: poison of which there is no page. */
export type Pte =
  | { readonly kind: 'present'; readonly pfn: number; dirty: boolean }
  | { readonly kind: 'hwpoison'; readonly pfn: number }
  | { readonly kind: 'marker' };

/** An address space. Addresses are the numbers of guest frames. */
export interface Mm {
  readonly ptes: Map<number, Pte>;
  /** Who gets BUS_MCEERR_AO; nobody where nobody asked for it (PR_MCE_KILL_EARLY). */
  readonly earlyThread?: Thread | undefined;
}

export interface Thread {
  readonly mm: Mm;
}

/**
 * `isolated` has nobody but memory_failure(), `offlist` was given up while it was poisoned and is not on the free list;
 * `gmem` is in a guest_memfd.
 */
export type PageType = 'buddy' | 'isolated' | 'offlist' | 'slab' | 'table' | 'anon' | 'file' | 'gmem';

/** struct page */
export interface Page {
  readonly pfn: number;
  type: PageType;
  /** PG_dirty */
  dirty: boolean;
  /** PG_hwpoison */
  hwpoison: boolean;
}

export type Failed = 'EBUSY' | 'EHWPOISON' | 'EOPNOTSUPP';

/** Of memory_failure(): who consumed poison, where action is required; and whether hardware reported the page. */
export interface Failure {
  readonly actionRequired?: Thread;
  readonly simulated?: boolean;
}

export type MceSignal = 'AR' | 'AO' | 'none';

export abstract class MemoryFailures {
  oneToOne = new OneToOneMap();
  readonly pages = new Map<number, Page>();
  readonly mms = new Set<Mm>();
  /** hw_memory_failure */
  hwMemoryFailure = false;

  /** SIGBUS; `none` without an address. */
  protected abstract sendSigbus(thread: Thread, code: MceSignal, pfn: number): void;
  /** mmu_notifier_invalidate_range_start() */
  protected abstract mmuNotifierInvalidate(mm: Mm, address: number): void;
  /** kvm_gmem_error_folio(), which returns MF_DELAYED. */
  protected abstract kvmGmemErrorFolio(pfn: number): void;

  page(pfn: number): Page {
    const page = this.pages.get(pfn);
    if (page === undefined) throw new Error(`there is no page ${pfn}`);
    return page;
  }

  /** A page that was never in use. */
  protected onlinePage(pfn: number): Page {
    const page: Page = { pfn, type: 'buddy', dirty: false, hwpoison: false };
    this.pages.set(pfn, page);
    return page;
  }

  /** free_pages_prepare() keeps poisoned pages away from the free list. */
  freePage(page: Page): void {
    page.dirty = false;
    page.type = page.hwpoison ? 'offlist' : 'buddy';
  }

  isMapped(pfn: number): boolean {
    return this.mappers(pfn).length > 0;
  }

  /** rmap_walk() */
  mappers(pfn: number): readonly { readonly mm: Mm; readonly address: number; readonly pte: Pte }[] {
    return [...this.mms].flatMap((mm) =>
      [...mm.ptes].flatMap(([address, pte]) =>
        pte.kind === 'present' && pte.pfn === pfn ? [{ mm, address, pte }] : [],
      ),
    );
  }

  /** memory_failure(): undefined where the page is out of everybody's reach. */
  memoryFailure(pfn: number, { actionRequired: current, simulated = false }: Failure): Failed | undefined {
    if (!simulated) this.hwMemoryFailure = true;
    const page = this.page(pfn);
    if (page.hwpoison) return current === undefined ? 'EHWPOISON' : this.killAccessingProcess(current, pfn);
    page.hwpoison = true;
    switch (page.type) {
      case 'buddy':
        this.takePageOffBuddy(page);
        return undefined;
      case 'slab':
      case 'table':
      case 'isolated':
      case 'offlist':
        return 'EBUSY';
      case 'anon':
      case 'file':
        this.hwpoisonUserMappings(page, current);
        this.mePagecacheClean(page);
        return undefined;
      case 'gmem':
        this.kvmGmemErrorFolio(pfn);
        // truncate_error_folio() takes MF_DELAYED for an error of the file system.
        return 'EBUSY';
    }
  }

  /** take_page_off_buddy() */
  private takePageOffBuddy(page: Page): void {
    page.type = 'isolated';
  }

  /** me_pagecache_clean(), me_pagecache_dirty(): out of the LRU, and of the file. */
  private mePagecacheClean(page: Page): void {
    page.type = 'isolated';
    page.dirty = false;
  }

  /** kill_accessing_process(): tells whoever touches a page again that was poisoned before. */
  private killAccessingProcess(current: Thread, pfn: number): 'EHWPOISON' | undefined {
    const found = [...current.mm.ptes.values()].some((pte) => pte.kind !== 'marker' && pte.pfn === pfn);
    if (!found) return undefined;
    this.sendSigbus(current, 'AR', pfn);
    return 'EHWPOISON';
  }

  /** hwpoison_user_mappings(): unmaps, and signals those who lose what is nowhere else. */
  hwpoisonUserMappings(page: Page, current: Thread | undefined): void {
    const toKill = this.collectProcs(page, current);
    this.unmapPoisonedFolio(page);
    if (page.dirty) for (const thread of toKill) this.sendSigbus(thread, thread === current ? 'AR' : 'AO', page.pfn);
  }

  /** collect_procs(), task_early_kill() */
  collectProcs({ pfn }: Page, current: Thread | undefined): readonly Thread[] {
    const mms = new Set(this.mappers(pfn).map(({ mm }) => mm));
    return [...mms].flatMap((mm) => (mm === current?.mm ? [current] : (mm.earlyThread ?? [])));
  }

  /** unmap_poisoned_folio(), try_to_unmap(): clean pages of files just go, others leave an entry that tells. */
  private unmapPoisonedFolio(page: Page): void {
    const mappers = this.mappers(page.pfn);
    const isDirty = page.dirty || mappers.some(({ pte }) => pte.kind === 'present' && pte.dirty);
    const dropped = page.type === 'file' && !isDirty;
    page.dirty = isDirty;
    for (const { mm, address } of mappers) {
      this.mmuNotifierInvalidate(mm, address);
      if (dropped) mm.ptes.delete(address);
      else mm.ptes.set(address, { kind: 'hwpoison', pfn: page.pfn });
    }
  }

  /** kill_me_maybe(), up to set_mce_nospec(), which comes where nothing failed. */
  killMeMaybe(current: Thread, pfn: number): Failed | undefined {
    const failed = this.memoryFailure(pfn, { actionRequired: current });
    if (failed === 'EBUSY') this.sendSigbus(current, 'none', pfn);
    return failed;
  }

  /** kill_me_never(), uc_decode_notifier(), likewise. */
  killMeNever(pfn: number): Failed | undefined {
    return this.memoryFailure(pfn, {});
  }

  /** unpoison_memory() */
  unpoisonMemory(pfn: number): Failed | undefined {
    if (this.hwMemoryFailure) return 'EOPNOTSUPP';
    const page = this.page(pfn);
    if (!page.hwpoison) return 'EBUSY';
    switch (page.type) {
      case 'isolated':
        page.hwpoison = false;
        this.freePage(page);
        return undefined;
      case 'offlist':
        // Nobody has it, and nobody puts it back on the free list.
        page.hwpoison = false;
        return undefined;
      case 'buddy':
      case 'slab':
      case 'table':
      case 'anon':
      case 'file':
      case 'gmem':
        return 'EBUSY';
    }
  }
}
