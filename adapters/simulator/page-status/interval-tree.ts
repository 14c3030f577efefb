/**
 * Shared ranges in a balanced tree. Source: thread of v2 "Add AMD SEV specific Hypercall3", December 2020: Steve Rutherford.
 * The ranges are disjoint, so that they are in order by their starts and by their ends alike, and no node needs to
 * know the last end below it, as those of include/linux/interval_tree_generic.h do.
 */
import { Coalescing, type RangeNode } from './coalescing.ts';
import { RedBlackTree, type TreeNode } from './red-black-tree.ts';

/** struct rb_root; struct rb_node, and two 64-bit numbers. */
const ROOT_BYTES = 8;
const NODE_BYTES = 40;

export class IntervalNode implements RangeNode, TreeNode {
  start: number;
  end: number;
  left: this | undefined = undefined;
  right: this | undefined = undefined;
  parent: this | undefined = undefined;
  isRed = true;

  constructor(start: number, end: number) {
    this.start = start;
    this.end = end;
  }
}

export class IntervalTree extends Coalescing<IntervalNode> {
  rotations = 0;
  protected tree = this.newTree();

  protected newTree(): RedBlackTree<IntervalNode> {
    return new RedBlackTree(this);
  }

  override get bytes(): number {
    return ROOT_BYTES + this.count * NODE_BYTES;
  }

  protected override firstEndingFrom(frame: number): IntervalNode | undefined {
    let found: IntervalNode | undefined;
    for (let node = this.tree.root; node !== undefined;) {
      this.steps++;
      if (node.end >= frame) {
        found = node;
        node = node.left;
      } else node = node.right;
    }
    return found;
  }

  protected override next(node: IntervalNode): IntervalNode | undefined {
    return this.tree.next(node);
  }

  protected override insert(start: number, end: number, before: IntervalNode | undefined): void {
    const { tree } = this;
    const node = new IntervalNode(start, end);
    if (before !== undefined && before.left === undefined) tree.link(node, before, 'left');
    else {
      const under = before?.left ?? tree.root;
      tree.link(node, under && tree.last(under), 'right');
    }
  }

  protected override erase(node: IntervalNode): void {
    this.tree.unlink(node);
  }

  protected override reset(): void {
    this.tree = this.newTree();
  }
}
