/** What the VMM does with guests and their records. */
import { PAGE_SHIFT } from '../../../model/core/abi.ts';
import type { Facts, RecordFact } from '../../../model/core/facts.ts';
import { fails, ok, type Outcome } from '../../../model/core/outcome.ts';
import type { Label } from '../../../model/core/state.ts';
import { GuestDonation } from './guest-donation.ts';
import { newGuest, sharedBy, type Guest, type Policy } from './guest.ts';
import { DISABLED, Hypercalls } from './hypercalls.ts';
import { BAD_RANGES, damaged, isValid, type Damage, type Image } from './image.ts';
import { FRAMES, type Range, type Reading } from './record.ts';

/** base and limit, 64 bits each. */
const ENTRY_BYTES = 16;
const GIB_SHIFT = 30n;

const framesIn = (gib: bigint): number => Number(gib << (GIB_SHIFT - PAGE_SHIFT));

export interface Known {
  readonly ranges: readonly Range[];
  readonly incomplete: boolean;
}

const NOTHING_KNOWN: Known = { ranges: [], incomplete: true };

export type Scribble = Exclude<Damage, 'short'> | 'count' | 'race';

export class StatusMachine extends Hypercalls {
  private readonly images = new Map<Label, Image>();

  forgetEvents(): void {
    this.outOfBounds.length = 0;
    for (const { work } of this.guests.values()) work.calls = work.steps = 0;
  }

  facts(): Facts {
    const guests = [...this.guests.values()];
    return {
      announced: guests.map((guest) => ({ guest: guest.label, ranges: sharedBy(guest) })),
      records: guests.map((guest): RecordFact => ({ guest: guest.label, ...this.toldOf(guest) })),
      statusWork: guests.map(({ label, record: { units, bytes }, work }) => ({ guest: label, units, bytes, ...work })),
      outOfBounds: [...this.outOfBounds],
    };
  }

  create(label: Label, gib: bigint, bound: bigint, policy: Policy): Outcome {
    const wanted = { label, bound: Number(bound), policy, frames: framesIn(gib) };
    this.guests.set(
      label,
      newGuest(wanted, (guest) => this.newRecord(guest)),
    );
    return ok();
  }

  enable(guest: Guest, isEnabled: boolean): Outcome {
    guest.isEnabled = isEnabled;
    return ok();
  }

  destroy({ label }: Guest): Outcome {
    this.guests.delete(label);
    return ok();
  }

  tick(guest: Guest): Outcome {
    guest.taken = 0;
    return ok();
  }

  /** How migration sends the page. */
  page(guest: Guest, gpa: bigint): Outcome {
    const frame = Number(gpa >> PAGE_SHIFT);
    if (frame >= FRAMES) return fails('EINVAL');
    if (guest.isMarked) return fails('ENODATA');
    const isShared = guest.record.has(frame);
    if (isShared === 'broken') this.mark(guest);
    return typeof isShared === 'string' ? fails('ENODATA') : ok(isShared ? 1n : 0n);
  }

  /** The record into a buffer of user space. */
  list(guest: Guest, size: number): Outcome {
    const known = this.known(guest);
    if (size === 0) return this.count(known);
    const { ranges, incomplete } = known;
    if (!this.fits(ranges, size)) return fails('E2BIG');
    const written = ranges.filter((range, index) => this.put(range, index, size));
    return { kind: 'ranges', ranges: written, incomplete };
  }

  /** How large a buffer has to be. No number can carry the mark. */
  count({ ranges, incomplete }: Known): Outcome {
    return incomplete ? fails('ENODATA') : ok(BigInt(ranges.length));
  }

  fits(ranges: readonly Range[], size: number): boolean {
    return ranges.length * ENTRY_BYTES <= size;
  }

  /** put_user(): whether the buffer has a place for it. */
  private put(_range: Range, index: number, size: number): boolean {
    const isInside = (index + 1) * ENTRY_BYTES <= size;
    if (!isInside) this.onOutside(`buffer of ${size} bytes: entry ${index} ends behind it`);
    return isInside;
  }

  /** Reads the record. What must not be read is marked, and not read again. */
  protected known(guest: Guest): Known {
    if (guest.isMarked) return NOTHING_KNOWN;
    const reading = guest.record.read();
    if (reading === 'broken') this.mark(guest);
    return told(reading);
  }

  /** What known() would tell. */
  toldOf({ isMarked, record }: Guest): Known {
    return isMarked ? NOTHING_KNOWN : told(record.peek());
  }

  save(guest: Guest, label: Label): Outcome {
    const image = this.imageOf(guest);
    this.images.set(label, image);
    return ok(BigInt(image.ranges.length));
  }

  imageOf(guest: Guest): Image {
    const { ranges, incomplete } = this.known(guest);
    const structure = guest.record instanceof GuestDonation ? guest.record.structure?.copy() : undefined;
    return {
      header: { count: ranges.length, isIncomplete: incomplete && guest.isMarked },
      ranges,
      memory: { shared: sharedBy(guest), structure },
    };
  }

  damage(label: Label, how: Damage): Outcome {
    this.images.set(label, damaged(this.imageAt(label), how));
    return ok();
  }

  load(guest: Guest, label: Label): Outcome {
    const image = this.imageAt(label);
    if (!this.isLoadable(image)) return fails('EINVAL');
    const record = this.newRecord(guest);
    if (!image.ranges.every(({ start, end }) => record.note(start, end, true))) return fails('E2BIG');
    if (guest.hasSpoken) return fails('EBUSY');
    guest.record = record;
    guest.isMarked = image.header.isIncomplete;
    guest.hasSpoken = true;
    guest.pageTables.clear();
    for (const { start, end } of image.memory.shared) guest.pageTables.set(start, end, true);
    if (record instanceof GuestDonation) record.structure = image.memory.structure?.copy();
    return ok();
  }

  isLoadable(image: Image): boolean {
    return isValid(image);
  }

  hasImage(label: Label): boolean {
    return this.images.has(label);
  }

  private imageAt(label: Label): Image {
    const image = this.images.get(label);
    if (image === undefined) throw new Error(`there is no image '${label}'`);
    return image;
  }

  plug(guest: Guest, gib: bigint): Outcome {
    const frames = framesIn(gib);
    if (frames < guest.frames) return fails('EINVAL');
    guest.frames = frames;
    guest.record.resize(frames);
    return ok();
  }

  reboot(guest: Guest): Outcome {
    guest.isDisabled = false;
    guest.taken = 0;
    guest.hasSpoken = false;
    guest.isMarked = false;
    guest.pageTables.clear();
    guest.record = this.newRecord(guest);
    return ok();
  }

  /** The next kernel wants all of its memory for itself, and says so. */
  kexec(guest: Guest): Outcome {
    return this.announce(guest, 0n, BigInt(guest.frames), 0x10n);
  }

  /** The guest writes what it likes where its ranges are. */
  scribble(guest: Guest, how: Scribble): Outcome {
    if (guest.isDisabled) return DISABLED;
    const { record } = guest;
    const structure = record instanceof GuestDonation ? record.structure : undefined;
    if (structure === undefined) return fails('EINVAL');
    if (how === 'race') structure.race();
    else if (how === 'count') structure.scribble([], structure.capacity + 1);
    else structure.scribble(BAD_RANGES[how]);
    return ok();
  }
}

const told = (reading: Reading): Known =>
  typeof reading === 'string' ? NOTHING_KNOWN : { ranges: reading, incomplete: false };
