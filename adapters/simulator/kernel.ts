/**
 * What every part of the simulated kernel needs: locks and hand-over points, slab allocation that can be made to fail,
 * objects at addresses that are used again, and the marks that tell which facts are out of date.
 */
import type { FirstTouch } from '../../model/core/facts.ts';
import { fails, ok, type Errno, type Outcome } from '../../model/core/outcome.ts';
import type { Config, Feature } from '../../model/core/profile.ts';

export type LockName =
  | 'kvm->lock'
  | 'vcpu->mutex'
  | 'slots_lock'
  | 'mmu_lock'
  | 'mmap_lock'
  | 'invalidate_lock'
  | 'folio_lock'
  | 'gpc->lock'
  | 'gpc->refresh_lock'
  | 'iova_rwsem'
  | 'tdx_lock'
  | 'sev_bitmap_lock'
  | 'sev_mirror_lock'
  | 'sev_cmd_mutex';

/** Places at which another task may run: before and after each lock is taken or released, and these. */
export type HandOverPoint = LockName | 'fput' | 'synchronize_srcu' | 'page_fault';

export interface Lock {
  readonly name: LockName;
  readers: number;
  writer: boolean;
}

export const newLock = (name: LockName): Lock => ({ name, readers: 0, writer: false });

/**
 * A task cannot go on before another one does: a deadlock where there is one task. To a scheduler it says that there is
 * no such schedule; the machine, left in the middle of an operation, is of no use any more.
 */
export class WouldBlock extends Error {}

/** The kernel touched an address that is not mapped. The task is gone, and whatever locks it held stay held. */
export class Oops extends Error {}

/** What a system call answers whose function returns 0 or an error. */
export const outcomeOf = (error: Errno | undefined): Outcome => (error === undefined ? ok() : fails(error));

/** The parts of the facts; each is built anew only when the mechanism behind it has changed something. */
export const PART = {
  VMS: 1,
  FILES: 2,
  SLOTS: 4,
  RESIDENT: 8,
  STAGE_TWO: 16,
  USER: 32,
  POISONED: 64,
  FREE: 128,
  EVENTS: 256,
  DIRECT_MAP: 512,
  CACHES: 1024,
} as const;

/**
 * Objects of one type. An address that was freed is given out again at once, as the kernel's allocator does, and until
 * then still shows the freed object: a pointer that outlives its object reads either.
 */
export class Slab<T extends { readonly address: number }> {
  private readonly objects: T[] = [];
  private readonly freed: number[] = [];

  allocate<O extends T>(make: (address: number) => O): O {
    const object = make(this.freed.pop() ?? this.objects.length);
    this.objects[object.address] = object;
    return object;
  }

  free(object: T): void {
    this.freed.push(object.address);
  }

  at(address: number): T {
    const object = this.objects[address];
    if (object === undefined) throw new Error(`kernel oops: nothing was ever allocated at ${address}`);
    return object;
  }
}

export abstract class Kernel {
  readonly config: Config;

  /**
   * Called at every hand-over point. Operations are plain synchronous functions, so a scheduler interleaves them by
   * running another operation from within this hook, to its end, before the first one goes on; WouldBlock says that it
   * cannot. So every schedule can be had in which an operation is interrupted by whole operations, and without a
   * scheduler a hand-over costs one comparison.
   */
  onHandOver: ((point: HandOverPoint) => void) | undefined;

  /** PART bits of what has changed since facts were last built. */
  stale = ~0;
  readonly firstTouches: FirstTouch[] = [];
  readonly outOfBounds: string[] = [];

  /** Allocations left until one fails; negative where none is to fail. */
  private slabCountdown = -1;

  constructor(config: Config) {
    this.config = config;
  }

  handOver(point: HandOverPoint): void {
    if (this.onHandOver !== undefined) this.onHandOver(point);
  }

  /** mutex_lock(), down_write() */
  lock(lock: Lock): void {
    this.handOver(lock.name);
    if (lock.writer || lock.readers > 0) throw new WouldBlock(`deadlock: ${lock.name} is held`);
    lock.writer = true;
  }

  unlock(lock: Lock): void {
    lock.writer = false;
    this.handOver(lock.name);
  }

  /** down_read() */
  lockShared(lock: Lock): void {
    this.handOver(lock.name);
    if (lock.writer) throw new WouldBlock(`deadlock: ${lock.name} is held`);
    lock.readers++;
  }

  unlockShared(lock: Lock): void {
    lock.readers--;
    this.handOver(lock.name);
  }

  /** lib/fault-inject.c: lets the allocation after the next `skip` ones fail, once. */
  failSlab(skip: number): void {
    this.slabCountdown = skip;
  }

  /** Allocates up to `count` slab objects and says how many there are: fewer mean that one allocation failed. */
  slabAllocate(count = 1): number {
    if (this.slabCountdown < 0) return count;
    const left = this.slabCountdown;
    if (left >= count) {
      this.slabCountdown -= count;
      return count;
    }
    this.slabCountdown = -1;
    return left;
  }

  /** kzalloc(), where only success matters. */
  kzalloc(): boolean {
    return this.slabAllocate() === 1;
  }

  /** Whether the profile has a proposal that is in no release. */
  has(feature: Feature): boolean {
    return this.config.profile.features.includes(feature);
  }

  /** Whether the rules are those of this release or a later one. */
  since(major: number, minor: number, patch = 0): boolean {
    const [ours, ourMinor, ourPatch] = this.config.profile.release;
    return ours !== major ? ours > major : ourMinor !== minor ? ourMinor > minor : ourPatch >= patch;
  }
}
