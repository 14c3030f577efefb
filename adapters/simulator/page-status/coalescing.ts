/** Ranges in nodes that are in order: what list and tree do alike. They differ in how a node is found, put in and taken out. */
import type { Range, StatusRecord } from './record.ts';

export interface RangeNode {
  start: number;
  end: number;
}

export abstract class Coalescing<N extends RangeNode> implements StatusRecord {
  readonly units: number;
  steps = 0;
  /** Nodes. */
  protected count = 0;

  constructor(bound: number) {
    this.units = bound;
  }

  abstract get bytes(): number;
  /** The first node that ends at this frame or behind. */
  protected abstract firstEndingFrom(frame: number): N | undefined;
  protected abstract next(node: N): N | undefined;
  /** Puts a node in before another one, or behind all. */
  protected abstract insert(start: number, end: number, before: N | undefined): void;
  protected abstract erase(node: N): void;
  protected abstract reset(): void;

  note(start: number, end: number, shared: boolean): boolean {
    return shared ? this.add(start, end) : this.remove(start, end);
  }

  private add(start: number, end: number): boolean {
    const first = this.firstTouching(start);
    if (first === undefined || first.start > this.lastTouched(end)) return this.allocate(start, end, first);
    first.start = Math.min(first.start, start);
    for (let other = this.next(first); other !== undefined && other.start <= this.lastTouched(end);) {
      first.end = other.end;
      const gone = other;
      other = this.next(other);
      this.release(gone);
    }
    first.end = Math.max(first.end, end);
    return true;
  }

  private remove(start: number, end: number): boolean {
    let node = this.firstEndingFrom(start + 1);
    if (node !== undefined && node.start < start) {
      if (node.end > end) return this.split(node, start, end);
      node.end = start;
      node = this.next(node);
    }
    while (node !== undefined && node.end <= end) {
      const gone: N = node;
      node = this.next(node);
      this.release(gone);
    }
    if (node !== undefined && node.start < end) node.start = end;
    return true;
  }

  /** Takes the middle out of a node. */
  protected split(node: N, start: number, end: number): boolean {
    const isNoted = this.allocate(end, node.end, this.next(node));
    if (isNoted) node.end = start;
    return isNoted;
  }

  /** A range that ends where another one begins becomes one with it. */
  protected firstTouching(start: number): N | undefined {
    return this.firstEndingFrom(start);
  }

  protected lastTouched(end: number): number {
    return end;
  }

  protected get isFull(): boolean {
    return this.count >= this.units;
  }

  private allocate(start: number, end: number, before: N | undefined): boolean {
    if (this.isFull) return false;
    this.insert(start, end, before);
    this.count++;
    return true;
  }

  private release(node: N): void {
    this.erase(node);
    this.count--;
  }

  read(): readonly Range[] {
    this.steps += this.count;
    return this.peek();
  }

  peek(): readonly Range[] {
    const { steps } = this;
    const ranges: Range[] = [];
    for (let node = this.firstEndingFrom(0); node !== undefined; node = this.next(node))
      ranges.push({ start: node.start, end: node.end });
    this.steps = steps;
    return ranges;
  }

  has(frame: number): boolean {
    const node = this.firstEndingFrom(frame + 1);
    return node !== undefined && node.start <= frame;
  }

  /** Each node is freed. */
  drop(): void {
    this.steps += this.count;
    this.count = 0;
    this.reset();
  }

  /** Ranges reach wherever there are frames. */
  resize(): void {
    // Nothing depends on how much memory there is.
  }
}
