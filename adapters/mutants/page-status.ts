/**
 * Hosts that keep a record of what guests share, with one mistake each: what review of the patches asked about (a bitmap
 * that one call makes as large as it likes, a mark that does not travel), and others of their kind.
 */
import { PAGE_MASK, wrap64 } from '../../model/core/abi.ts';
import { ok, type Outcome } from '../../model/core/outcome.ts';
import { hostOf } from '../simulator/host.ts';
import { Bitmap } from '../simulator/page-status/bitmap.ts';
import { performStatus } from '../simulator/page-status/commands.ts';
import { GuestDonation, type Structure } from '../simulator/page-status/guest-donation.ts';
import { setPages, type Change, type Guest } from '../simulator/page-status/guest.ts';
import type { Image } from '../simulator/page-status/image.ts';
import { IntervalTree, type IntervalNode } from '../simulator/page-status/interval-tree.ts';
import type { PscBuffer, PscEntry, PscHeader } from '../simulator/page-status/psc.ts';
import { RangeList, type ListNode } from '../simulator/page-status/range-list.ts';
import type { Range } from '../simulator/page-status/record.ts';
import { RedBlackTree } from '../simulator/page-status/red-black-tree.ts';
import { StatusMachine, type Known } from '../simulator/page-status/vmm.ts';
import type { Fault } from './fault.ts';

const BITMAP = 'page-status-bitmap';
const LIST = 'page-status-range-list';
const TREE = 'page-status-interval-tree';
const DONATION = 'page-status-guest-donation';

const host = hostOf(performStatus);

/** A machine with a list of its own. */
const withList = (List: new (bound: number) => RangeList): Fault['machine'] =>
  host(
    class extends StatusMachine {
      override newRangeList(bound: number): RangeList {
        return new List(bound);
      }
    },
  );

const structures: readonly Fault[] = [
  {
    id: 'adjacent-ranges-not-merged',
    shortest: 3,
    profile: LIST,
    fault: 'keeps a range that begins where another one ends as one of its own',
    machine: withList(
      class extends RangeList {
        protected override firstTouching(start: number): ListNode | undefined {
          return this.firstEndingFrom(start + 1);
        }
        protected override lastTouched(end: number): number {
          return end - 1;
        }
      },
    ),
  },
  {
    id: 'range-list-one-too-many',
    shortest: 4,
    profile: LIST,
    fault: 'takes one range more than the VMM allows',
    machine: withList(
      class extends RangeList {
        protected override get isFull(): boolean {
          return this.count > this.units;
        }
      },
    ),
  },
  {
    id: 'range-list-one-too-few',
    shortest: 4,
    profile: LIST,
    fault: 'marks the record although there is room for one more range',
    machine: withList(
      class extends RangeList {
        protected override get isFull(): boolean {
          return this.count + 1 >= this.units;
        }
      },
    ),
  },
  {
    id: 'punch-loses-right-half',
    shortest: 4,
    profile: LIST,
    fault: 'forgets what is behind the pages that were taken out of the middle of a range',
    machine: withList(
      class extends RangeList {
        protected override split(node: ListNode, start: number): boolean {
          node.end = start;
          return true;
        }
      },
    ),
  },
  {
    id: 'split-beyond-bound',
    shortest: 5,
    profile: LIST,
    fault: 'does not ask whether there is room for the second half of a range that is split',
    machine: withList(
      class extends RangeList {
        protected override split(node: ListNode, start: number, end: number): boolean {
          this.insert(end, node.end, this.next(node));
          this.count++;
          node.end = start;
          return true;
        }
      },
    ),
  },
  {
    id: 'rotation-loses-subtree',
    shortest: 3,
    profile: TREE,
    fault: 'forgets the nodes between the two that change places in a rotation',
    machine: host(
      class extends StatusMachine {
        override newIntervalTree(bound: number): IntervalTree {
          return new LossyTree(bound);
        }
      },
    ),
  },
  {
    id: 'bitmap-grown-per-call',
    shortest: 3,
    profile: BITMAP,
    fault: 'makes the bitmap as large as the address that a guest names',
    machine: host(
      class extends StatusMachine {
        override newBitmap(frames: number): Bitmap {
          return new GrowingBitmap(frames);
        }
      },
    ),
  },
  {
    id: 'bitmap-last-bit',
    shortest: 3,
    profile: BITMAP,
    fault: 'writes one bit too few',
    machine: host(
      class extends StatusMachine {
        override newBitmap(frames: number): Bitmap {
          return new ShortBitmap(frames);
        }
      },
    ),
  },
  {
    id: 'bitmap-lost-on-plug',
    shortest: 4,
    profile: BITMAP,
    fault: 'takes a new bitmap for more memory, and forgets what was in the old one',
    machine: host(
      class extends StatusMachine {
        override plug(...[guest, gib]: Parameters<StatusMachine['plug']>): Outcome {
          const outcome = super.plug(guest, gib);
          if (outcome.kind === 'ok') guest.record = this.newRecord(guest);
          return outcome;
        }
      },
    ),
  },
];

class LossyTree extends IntervalTree {
  protected override newTree(): RedBlackTree<IntervalNode> {
    return new (class extends RedBlackTree<IntervalNode> {
      override rotate(node: IntervalNode, side: 'left' | 'right'): void {
        const riser = node[side === 'left' ? 'right' : 'left'];
        if (riser !== undefined) riser[side] = undefined;
        super.rotate(node, side);
      }
    })(this);
  }
}

/** Only says how large it is: what it stands for is not to be had. */
class GrowingBitmap extends Bitmap {
  private grown = 0;

  override get bytes(): number {
    return Math.max(super.bytes, Math.ceil(this.grown / 8));
  }
  override note(start: number, end: number, shared: boolean): boolean {
    this.grown = Math.max(this.grown, end);
    return super.note(start, end, shared);
  }
}

class ShortBitmap extends Bitmap {
  override note(start: number, end: number, shared: boolean): boolean {
    return super.note(start, Math.max(start + 1, end - 1), shared);
  }
}

const marks: readonly Fault[] = [
  {
    id: 'mark-lost-on-save',
    shortest: 5,
    profile: LIST,
    fault: 'says nothing in what is saved of the record being incomplete',
    machine: host(
      class extends StatusMachine {
        override imageOf(guest: Guest): Image {
          const image = super.imageOf(guest);
          return { ...image, header: { ...image.header, isIncomplete: false } };
        }
      },
    ),
  },
  {
    id: 'mark-lost-on-load',
    shortest: 5,
    profile: TREE,
    fault: 'takes the ranges of an image and not its mark',
    machine: host(
      class extends StatusMachine {
        override load(...[guest, image]: Parameters<StatusMachine['load']>): Outcome {
          const outcome = super.load(guest, image);
          if (outcome.kind === 'ok') guest.isMarked = false;
          return outcome;
        }
      },
    ),
  },
  {
    id: 'mark-lost-on-plug',
    shortest: 3,
    profile: BITMAP,
    fault: 'forgets that the record is incomplete when memory is plugged',
    machine: host(
      class extends StatusMachine {
        override plug(...[guest, gib]: Parameters<StatusMachine['plug']>): Outcome {
          const outcome = super.plug(guest, gib);
          if (outcome.kind === 'ok') guest.isMarked = false;
          return outcome;
        }
      },
    ),
  },
  {
    id: 'mark-lost-by-later-call',
    shortest: 3,
    profile: LIST,
    fault: 'takes the record for complete again once an announcement has room',
    machine: host(
      class extends StatusMachine {
        override note(guest: Guest, change: Change): void {
          guest.isMarked = false;
          super.note(guest, change);
        }
      },
    ),
  },
  {
    id: 'mark-lost-on-kexec',
    shortest: 3,
    profile: TREE,
    fault:
      'takes a guest whose kernel starts another one for a new guest, although it can no longer say what it shares',
    machine: host(
      class extends StatusMachine {
        override kexec(guest: Guest): Outcome {
          guest.isMarked = false;
          return super.kexec(guest);
        }
      },
    ),
  },
  {
    id: 'mark-without-reset',
    shortest: 4,
    profile: LIST,
    fault: 'keeps the mark of a guest that was reset',
    machine: host(
      class extends StatusMachine {
        override reboot(guest: Guest): Outcome {
          const { isMarked } = guest;
          const outcome = super.reboot(guest);
          guest.isMarked = isMarked;
          return outcome;
        }
      },
    ),
  },
  {
    id: 'unheard-change-not-marked',
    shortest: 2,
    profile: TREE,
    fault: 'has a complete record of a guest that was told that nobody listens',
    machine: host(
      class extends StatusMachine {
        protected override changeUnheard(guest: Guest, change: Change): void {
          setPages(guest, change);
        }
      },
    ),
  },
  {
    id: 'full-list-drops-silently',
    shortest: 2,
    profile: LIST,
    fault: 'leaves out what has no room, and says nothing',
    machine: host(
      class extends StatusMachine {
        override mark(): void {
          // Nobody is told.
        }
      },
    ),
  },
];

const calls: readonly Fault[] = [
  {
    id: 'wrap-not-checked',
    shortest: 3,
    profile: LIST,
    fault: 'does not see that the pages wrap, and ends with a range that ends before it begins',
    machine: host(
      class extends StatusMachine {
        override changeOf(...[gpa, pages, attributes]: Parameters<StatusMachine['changeOf']>): Change | undefined {
          const change = super.changeOf(gpa, pages, attributes);
          const [start, end] = [gpa >> 12n, wrap64((gpa >> 12n) + pages)];
          if (change !== undefined || (gpa & PAGE_MASK) !== 0n || end >= start) return change;
          return { start: Number(start), end: Number(end), shared: (attributes & 0x10n) === 0n };
        }
      },
    ),
  },
  {
    id: 'kexec-leaves-record',
    shortest: 4,
    profile: BITMAP,
    fault: 'does not hear the announcement of the next kernel',
    machine: host(
      class extends StatusMachine {
        private isDeaf = false;

        override kexec(guest: Guest): Outcome {
          this.isDeaf = true;
          const outcome = super.kexec(guest);
          this.isDeaf = false;
          return outcome;
        }
        override note(guest: Guest, change: Change): void {
          if (!this.isDeaf) super.note(guest, change);
        }
      },
    ),
  },
  {
    id: 'psc-header-read-twice',
    shortest: 3,
    profile: TREE,
    fault: 'checks the header of a page-state change, and reads it again to use it',
    machine: host(
      class extends StatusMachine {
        override readHeader(buffer: PscBuffer): PscHeader | undefined {
          return super.readHeader(buffer) && buffer.readHeader();
        }
      },
    ),
  },
  {
    id: 'psc-takes-done-pages',
    shortest: 4,
    profile: LIST,
    fault: 'does a page-state change that was done in part from its beginning',
    machine: host(
      class extends StatusMachine {
        protected override applyEntry(guest: Guest, entry: PscEntry): void {
          super.applyEntry(guest, { ...entry, currentPage: entry.currentPage === entry.pages ? entry.pages : 0 });
        }
      },
    ),
  },
  {
    id: 'throttle-never-refills',
    shortest: 5,
    profile: TREE,
    fault: 'keeps a guest waiting although its time is over',
    machine: host(
      class extends StatusMachine {
        override tick(): Outcome {
          return ok();
        }
      },
    ),
  },
];

const readers: readonly Fault[] = [
  {
    id: 'incomplete-counted-as-empty',
    shortest: 3,
    profile: LIST,
    fault: 'says of an incomplete record that it has no ranges, to who asks for their number first',
    machine: host(
      class extends StatusMachine {
        override count({ ranges }: Known): Outcome {
          return ok(BigInt(ranges.length));
        }
      },
    ),
  },
  {
    id: 'short-buffer-overrun',
    shortest: 4,
    profile: TREE,
    fault: 'fills a buffer past its end',
    machine: host(
      class extends StatusMachine {
        override fits(): boolean {
          return true;
        }
      },
    ),
  },
  {
    id: 'image-not-checked',
    shortest: 4,
    profile: LIST,
    fault: 'trusts the image of a guest',
    machine: host(
      class extends StatusMachine {
        override isLoadable(): boolean {
          return true;
        }
      },
    ),
  },
  {
    id: 'load-over-announcements',
    shortest: 4,
    profile: BITMAP,
    fault: 'puts an image over a guest that has announced pages, and keeps what that one shares',
    machine: host(
      class extends StatusMachine {
        override load(...[guest, image]: Parameters<StatusMachine['load']>): Outcome {
          guest.hasSpoken = false;
          return super.load(guest, image);
        }
      },
    ),
  },
  {
    id: 'donation-count-read-twice',
    shortest: 4,
    profile: DONATION,
    fault: 'checks the count that the guest has written, and reads it again to use it',
    machine: host(
      class extends StatusMachine {
        override newDonation(...args: ConstructorParameters<typeof GuestDonation>): GuestDonation {
          return new DoubleFetch(...args);
        }
      },
    ),
  },
  {
    id: 'donation-believed',
    shortest: 4,
    profile: DONATION,
    fault: 'believes whatever ranges a guest has written',
    machine: host(
      class extends StatusMachine {
        override newDonation(...args: ConstructorParameters<typeof GuestDonation>): GuestDonation {
          return new Believer(...args);
        }
      },
    ),
  },
  {
    id: 'donation-outlives-reset',
    shortest: 5,
    profile: DONATION,
    fault: 'goes on reading where the guest kept its ranges before it was reset',
    machine: host(
      class extends StatusMachine {
        override reboot(guest: Guest): Outcome {
          const before = guest.record;
          const outcome = super.reboot(guest);
          guest.record = before;
          return outcome;
        }
      },
    ),
  },
  {
    id: 'donated-twice',
    shortest: 4,
    profile: DONATION,
    fault: 'takes a second donation',
    machine: host(
      class extends StatusMachine {
        protected override refuseSecond(): Outcome {
          return ok();
        }
      },
    ),
  },
];

class DoubleFetch extends GuestDonation {
  protected override copyEntries(structure: Structure): readonly Range[] {
    const count = structure.readCount();
    // What is behind the structure is not to be had: one entry of it shows that it was read.
    return super.copyEntries(structure, Math.min(count, structure.capacity + 1));
  }
}

class Believer extends GuestDonation {
  protected override isGood(): boolean {
    return true;
  }
}

export const PAGE_STATUS_FAULTS: readonly Fault[] = [...structures, ...marks, ...calls, ...readers];
