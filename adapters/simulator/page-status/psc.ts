/**
 * Page-state changes of SNP: the buffer in the GHCB, which the guest may write to at any time. Source: snp_begin_psc(),
 * snp_do_psc(), arch/x86/kvm/svm/sev.c.
 */

/** VMGEXIT_PSC_MAX_COUNT */
const MAX_COUNT = 253;
const PAGES_OF_2M = 512;
const U16_MAX = 0xffff;

/** struct psc_hdr */
export interface PscHeader {
  readonly current: number;
  readonly end: number;
}

/** struct psc_entry */
export interface PscEntry {
  readonly currentPage: number;
  readonly gfn: number;
  readonly operation: number;
  /** Of 4 KiB each. */
  readonly pages: number;
}

export const PSC_OPERATION = { PRIVATE: 1, SHARED: 2 } as const;

/** SW_EXITINFO2 */
export type PscStatus =
  'VMGEXIT_PSC_ERROR_GENERIC' | 'VMGEXIT_PSC_ERROR_INVALID_HDR' | 'VMGEXIT_PSC_ERROR_INVALID_ENTRY';

export class PscBuffer {
  private header: PscHeader;
  private readonly entries: readonly bigint[];
  private readonly isRacing: boolean;
  private readonly onOutside: (what: string) => void;

  constructor(header: PscHeader, entries: readonly bigint[], isRacing: boolean, onOutside: (what: string) => void) {
    this.header = header;
    this.entries = entries;
    this.isRacing = isRacing;
    this.onOutside = onOutside;
  }

  readHeader(): PscHeader {
    const { header } = this;
    if (this.isRacing) this.header = { ...header, end: U16_MAX };
    return header;
  }

  readEntry(index: number): PscEntry {
    if (index >= MAX_COUNT) this.onOutside(`PSC buffer: entry ${index} of ${MAX_COUNT}`);
    const entry = this.entries[index] ?? 0n;
    const field = (shift: bigint, bits: bigint): number => Number((entry >> shift) & ((1n << bits) - 1n));
    return {
      currentPage: field(0n, 12n),
      gfn: field(12n, 40n),
      operation: field(52n, 4n),
      pages: field(56n, 1n) === 1 ? PAGES_OF_2M : 1,
    };
  }
}

export const isHeaderValid = ({ end }: PscHeader): boolean => end < MAX_COUNT;

export const isEntryValid = ({ currentPage, gfn, pages }: PscEntry): boolean =>
  currentPage <= pages && gfn % pages === 0;
