/**
 * The 1:1 map of a kernel: large entries that split when a page in them is to differ, and addresses that only look like
 * those of the map. Source: arch/x86/mm/pat/set_memory.c.
 */
import type { McOneToOne } from '../../../model/core/machine-check.ts';

const PAGE_SHIFT = 12n;
const PAGE_OFFSET = 0xffff_8880_0000_0000n;
const BIT_63 = 1n << 63n;
const PHYSICAL_MASK = (1n << 52n) - 1n;

/** Pages under a large entry; a real one has 512. */
const PAGES_OF_LARGE = 2;

interface Entry {
  readonly present: boolean;
  /** _PAGE_PCD */
  readonly uncacheable: boolean;
}

type LargeEntry = { readonly large: Entry } | { readonly table: Entry[] };

const FRESH: Entry = { present: true, uncacheable: false };

export class OneToOneMap {
  /** By number of the large entry; those that were never changed are left out. */
  private readonly entries = new Map<number, LargeEntry>();

  /** include/asm/page.h: __va() */
  addressOf(pfn: number): bigint {
    return PAGE_OFFSET + (BigInt(pfn) << PAGE_SHIFT);
  }

  /** set_mce_nospec(): an address of the page that no speculation can load from. */
  decoyOf(pfn: number): bigint {
    return this.addressOf(pfn) ^ BIT_63;
  }

  /** __pa() of an address of the map, of which the mask leaves the same for a decoy. */
  pfnOf(address: bigint): number {
    return Number(((address - PAGE_OFFSET) & PHYSICAL_MASK) >> PAGE_SHIFT);
  }

  /** fix_addr(): the address that INVLPG and CLFLUSH take. */
  fixAddr(address: bigint): bigint {
    return address | BIT_63;
  }

  /** lookup_address() */
  lookup(pfn: number): Entry {
    const entry = this.entries.get(this.largeOf(pfn));
    if (entry === undefined) return FRESH;
    return 'large' in entry ? entry.large : (entry.table[pfn % PAGES_OF_LARGE] ?? FRESH);
  }

  shows(pfn: number): McOneToOne {
    const { present, uncacheable } = this.lookup(pfn);
    if (!present) return 'absent';
    return uncacheable ? 'uncacheable' : 'present';
  }

  /** __change_page_attr(): whether anything differs now (CPA_FLUSHTLB). */
  changePageAttr(address: bigint, change: Partial<Entry>): boolean {
    const pfn = this.pfnOf(address);
    const before = this.lookup(pfn);
    const after = { ...before, ...change };
    if (before.present === after.present && before.uncacheable === after.uncacheable) return false;
    this.splitLargePage(pfn)[pfn % PAGES_OF_LARGE] = after;
    return true;
  }

  /** split_large_page(): every page under the large entry gets an entry of its own, which is like it. */
  splitLargePage(pfn: number): Entry[] {
    const entry = this.entries.get(this.largeOf(pfn)) ?? { large: FRESH };
    if ('table' in entry) return entry.table;
    const table = Array.from({ length: PAGES_OF_LARGE }, () => entry.large);
    this.entries.set(this.largeOf(pfn), { table });
    return table;
  }

  /** arch_add_memory() */
  mapAgain(pfn: number): void {
    this.splitLargePage(pfn)[pfn % PAGES_OF_LARGE] = FRESH;
  }

  private largeOf(pfn: number): number {
    return Math.floor(pfn / PAGES_OF_LARGE);
  }

  /** Of the pages below `end`, those that the map does not show. */
  absentBelow(end: number): readonly number[] {
    return Array.from({ length: end }, (_each, pfn) => pfn).filter((pfn) => !this.lookup(pfn).present);
  }
}
