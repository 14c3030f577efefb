/** What a guest made of its pages, told from its announcements: in bounded memory, however long it goes on. */
import type { RangeSet } from '../model/core/ranges.ts';
import type { SharedRecord } from '../model/sev/shared-set.ts';

/** Different ranges of which it is remembered how often they were announced. */
const REMEMBERED = 65_536;

export interface Peak {
  readonly count: number;
  readonly line: number;
}

export interface SharedPages {
  readonly announcements: number;
  /** Announcements that changed something, and those that said nothing new. */
  readonly changes: number;
  readonly redundant: number;
  /** Announcements of one page of 4 KiB. */
  readonly ofOnePage: number;
  /** Different ranges that were announced, and those of them that were three times or more; up to what is remembered. */
  readonly ranges: number;
  readonly repeated: number;
  /** Announcements of these. */
  readonly ofRepeated: number;
  readonly isForgetful: boolean;
  readonly mostRanges: Peak;
  readonly mostPages: Peak;
  readonly record: SharedRecord;
}

const pagesOf = (ranges: RangeSet): number => ranges.reduce((sum, { start, end }) => sum + end - start, 0);

export class SharedPagesTally {
  #announcements = 0;
  #changes = 0;
  #ofOnePage = 0;
  readonly #times = new Map<string, number>();
  #isForgetful = false;
  #mostRanges: Peak = { count: 0, line: 0 };
  #mostPages: Peak = { count: 0, line: 0 };
  #pages = 0;

  /** The set behind an announcement of `pages` from `gpa` on. */
  see(line: number, gpa: bigint, pages: bigint, before: RangeSet, after: RangeSet): void {
    this.#announcements++;
    if (pages === 1n) this.#ofOnePage++;
    this.#remember(`${gpa} ${pages}`);
    if (before === after) return;
    this.#changes++;
    this.#pages = pagesOf(after);
    if (after.length > this.#mostRanges.count) this.#mostRanges = { count: after.length, line };
    if (this.#pages > this.#mostPages.count) this.#mostPages = { count: this.#pages, line };
  }

  result(record: SharedRecord): SharedPages {
    const repeated = [...this.#times.values()].filter((times) => times > 2);
    return {
      announcements: this.#announcements,
      changes: this.#changes,
      redundant: this.#announcements - this.#changes,
      ofOnePage: this.#ofOnePage,
      ranges: this.#times.size,
      repeated: repeated.length,
      ofRepeated: repeated.reduce((sum, times) => sum + times, 0),
      isForgetful: this.#isForgetful,
      mostRanges: this.#mostRanges,
      mostPages: this.#mostPages,
      record,
    };
  }

  #remember(range: string): void {
    const times = this.#times.get(range);
    if (times === undefined && this.#times.size === REMEMBERED) this.#isForgetful = true;
    else this.#times.set(range, (times ?? 0) + 1);
  }
}
