/**
 * A linked list of shared ranges, walked from its head. Source: thread of v2 "Add AMD SEV specific Hypercall3", January
 * 2021: Ashish Kalra; bound and mark: Steve Rutherford.
 */
import { Coalescing, type RangeNode } from './coalescing.ts';

/** struct list_head, and two 64-bit numbers. */
const HEAD_BYTES = 16;
const NODE_BYTES = 32;

export interface ListNode extends RangeNode {
  previous: ListNode;
  following: ListNode;
}

/** LIST_HEAD_INIT: linked to itself, and a node of no range. */
function newHead(): ListNode {
  const head = { start: Infinity, end: Infinity } as ListNode;
  head.previous = head.following = head;
  return head;
}

export class RangeList extends Coalescing<ListNode> {
  private head = newHead();

  override get bytes(): number {
    return HEAD_BYTES + this.count * NODE_BYTES;
  }

  protected override firstEndingFrom(frame: number): ListNode | undefined {
    let node = this.head.following;
    while (node.end < frame) {
      this.steps++;
      node = node.following;
    }
    return this.visit(node);
  }

  protected override next(node: ListNode): ListNode | undefined {
    return this.visit(node.following);
  }

  private visit(node: ListNode): ListNode | undefined {
    this.steps++;
    return node === this.head ? undefined : node;
  }

  /** list_add_tail() */
  protected override insert(start: number, end: number, before: ListNode = this.head): void {
    const node = { start, end, previous: before.previous, following: before };
    before.previous.following = node;
    before.previous = node;
  }

  /** list_del() */
  protected override erase(node: ListNode): void {
    node.previous.following = node.following;
    node.following.previous = node.previous;
  }

  protected override reset(): void {
    this.head = newHead();
  }
}
