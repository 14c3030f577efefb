/**
 * The kernel's linear map of all memory, and what the CPUs remember of it. Source: arch/x86/mm/pat/set_memory.c,
 * arch/x86/mm/tlb.c.
 */
import type { Errno } from '../../model/core/outcome.ts';
import { Frames, type Folio } from './frames.ts';
import { Oops, PART } from './kernel.ts';
import { RunMap } from './ranges.ts';

export type Cpu = 0 | 1;

/** Splitting a large entry for a page that is to be absent; or putting a page back. */
export type DirectMapChange = 'split' | 'restore';

/** The CPU that executes everything that does not say where it runs. */
const THIS_CPU: Cpu = 0;

export abstract class DirectMap extends Frames {
  /** Frames whose entry is not present. */
  readonly absent = new RunMap<true>();
  /** By CPU: frames with a translation, whatever has become of the entry since. */
  readonly tlbs: readonly [RunMap<true>, RunMap<true>] = [new RunMap(), new RunMap()];

  /** The change of an entry that is to fail next, once. */
  failing: DirectMapChange | undefined;
  /** Frames with an entry of their own, because the large one that showed them was split. */
  private readonly split = new RunMap<true>();

  /** set_direct_map_invalid_noflush(), for each page of the folio. Only a large entry that is to be split makes it fail. */
  setDirectMapInvalidNoflush({ frame, count }: Folio): Errno | undefined {
    if (this.failing === 'split' && this.split.gaps(frame, frame + count).length > 0) {
      this.failing = undefined;
      return 'ENOMEM';
    }
    this.split.set(frame, frame + count, true);
    this.absent.set(frame, frame + count, true);
    this.stale |= PART.DIRECT_MAP;
    return undefined;
  }

  /** set_direct_map_default_noflush(), for each page of the folio. */
  setDirectMapDefaultNoflush({ frame, count }: Folio): Errno | undefined {
    if (this.failing === 'restore') {
      this.failing = undefined;
      return 'ENOMEM';
    }
    this.absent.delete(frame, frame + count);
    this.stale |= PART.DIRECT_MAP;
    return undefined;
  }

  /** What becomes of entries when their frames go back to the allocator: they may be large again the next time. */
  collapse({ frame, count }: Folio): void {
    this.split.delete(frame, frame + count);
  }

  /** flush_tlb_kernel_range(): on every CPU. */
  flushTlbKernelRange({ frame, count }: Folio): void {
    for (const tlb of this.tlbs) tlb.delete(frame, frame + count);
    this.stale |= PART.DIRECT_MAP;
  }

  /** Whether the CPU has a translation of the frame's direct-map address, or can have one; it keeps it. */
  translate(cpu: Cpu, frame: number): boolean {
    const tlb = this.tlbs[cpu];
    if (tlb.get(frame) === true) return true;
    if (this.absent.get(frame) === true) return false;
    tlb.set(frame, frame + 1, true);
    return true;
  }

  /** A load by kernel code, of a word of the frame. */
  kernelLoad(frame: number, word: number, cpu: Cpu = THIS_CPU): bigint {
    this.touch(frame, cpu);
    return this.readWord(frame, word);
  }

  kernelStore(frame: number, word: number, value: bigint): void {
    this.touch(frame, THIS_CPU);
    this.writeWord(frame, word, value);
  }

  private touch(frame: number, cpu: Cpu): void {
    if (!this.translate(cpu, frame)) throw new Oops(`unable to handle page fault: frame ${frame} is not mapped`);
  }

  override clearHighpage(folio: Folio): void {
    if (this.has('direct-map')) this.touchAll(folio);
    super.clearHighpage(folio);
  }

  private touchAll({ frame, count }: Folio): void {
    const tlb = this.tlbs[THIS_CPU];
    for (const { start, end } of tlb.gaps(frame, frame + count)) {
      if (this.absent.nextFilled(start, end) < end) throw new Oops('unable to handle page fault: a page to be zeroed');
      tlb.set(start, end, true);
    }
  }
}
