/**
 * A red-black tree by hand, because what it does is what is to be counted: a library shows neither the nodes that it
 * visits nor its rotations. As lib/rbtree.c: nodes know their parents, and hold what they are about.
 */

export interface TreeNode {
  left: this | undefined;
  right: this | undefined;
  parent: this | undefined;
  isRed: boolean;
}

type Side = 'left' | 'right';

const opposite = (side: Side): Side => (side === 'left' ? 'right' : 'left');
const isRed = (node: TreeNode | undefined): boolean => node?.isRed === true;

/** Nodes that were visited, and rotations that were made. */
export interface TreeWork {
  steps: number;
  rotations: number;
}

export class RedBlackTree<N extends TreeNode> {
  root: N | undefined;
  private readonly work: TreeWork;

  constructor(work: TreeWork) {
    this.work = work;
  }

  /** Links a new node under a leaf, or makes it the root, and restores balance. */
  link(node: N, parent: N | undefined, side: Side): void {
    node.parent = parent;
    node.isRed = true;
    if (parent === undefined) this.root = node;
    else parent[side] = node;
    this.balanceAfterLink(node);
  }

  /** A red node has no red parent. */
  private balanceAfterLink(added: N): void {
    let node = added;
    for (let parent = node.parent; parent?.isRed === true; parent = node.parent) {
      this.work.steps++;
      const grandparent = parent.parent as N;
      const side: Side = parent === grandparent.left ? 'left' : 'right';
      const uncle = grandparent[opposite(side)];
      if (isRed(uncle)) {
        parent.isRed = (uncle as N).isRed = false;
        grandparent.isRed = true;
        node = grandparent;
        continue;
      }
      if (node === parent[opposite(side)]) {
        this.rotate(parent, side);
        [node, parent] = [parent, node];
      }
      parent.isRed = false;
      grandparent.isRed = true;
      this.rotate(grandparent, opposite(side));
    }
    (this.root as N).isRed = false;
  }

  /** rb_erase() */
  unlink(node: N): void {
    const { left, right } = node;
    if (left !== undefined && right !== undefined) {
      this.unlinkInner(node, left, right);
      return;
    }
    const child = left ?? right;
    const { parent } = node;
    const side: Side = parent?.left === node ? 'left' : 'right';
    this.replace(node, child);
    if (!node.isRed) this.balanceAfterUnlink(child, parent, side);
  }

  /** The next node in order, which has no left child, takes its place. */
  private unlinkInner(node: N, left: N, right: N): void {
    let heir = right;
    for (this.work.steps++; heir.left !== undefined; heir = heir.left) this.work.steps++;
    const isHeirRed = heir.isRed;
    const child = heir.right;
    let parent: N = heir;
    let side: Side = 'right';
    if (heir !== right) {
      parent = heir.parent as N;
      side = 'left';
      this.replace(heir, child);
      heir.right = right;
      right.parent = heir;
    }
    this.replace(node, heir);
    heir.left = left;
    left.parent = heir;
    heir.isRed = node.isRed;
    if (!isHeirRed) this.balanceAfterUnlink(child, parent, side);
  }

  /** All ways down have as many black nodes; on this side of `parent` one is missing. */
  private balanceAfterUnlink(from: N | undefined, above: N | undefined, at: Side): void {
    let [node, parent, side] = [from, above, at];
    while (parent !== undefined && !isRed(node)) {
      this.work.steps++;
      const far = opposite(side);
      if (isRed(parent[far])) {
        (parent[far] as N).isRed = false;
        parent.isRed = true;
        this.rotate(parent, side);
      }
      const sibling = parent[far] as N;
      if (isRed(sibling[side]) || isRed(sibling[far])) {
        this.borrow(parent, sibling, side);
        return;
      }
      sibling.isRed = true;
      node = parent;
      ({ parent } = node);
      side = parent?.left === node ? 'left' : 'right';
    }
    if (node !== undefined) node.isRed = false;
  }

  /** A sibling with a red child has a node to spare. */
  private borrow(parent: N, black: N, side: Side): void {
    const far = opposite(side);
    let sibling = black;
    if (!isRed(sibling[far])) {
      (sibling[side] as N).isRed = false;
      sibling.isRed = true;
      this.rotate(sibling, far);
      sibling = parent[far] as N;
    }
    sibling.isRed = parent.isRed;
    parent.isRed = false;
    (sibling[far] as N).isRed = false;
    this.rotate(parent, side);
  }

  /** Moves a node down to this side; its child of the other side takes its place. */
  rotate(node: N, side: Side): void {
    this.work.rotations++;
    this.work.steps++;
    const far = opposite(side);
    const riser = node[far] as N;
    const middle = riser[side];
    node[far] = middle;
    if (middle !== undefined) middle.parent = node;
    this.replace(node, riser);
    riser[side] = node;
    node.parent = riser;
  }

  private replace(node: N, by: N | undefined): void {
    const { parent } = node;
    if (parent === undefined) this.root = by;
    else if (parent.left === node) parent.left = by;
    else parent.right = by;
    if (by !== undefined) by.parent = parent;
  }

  /** rb_next() */
  next(node: N): N | undefined {
    let at = node.right;
    if (at !== undefined) {
      for (this.work.steps++; at.left !== undefined; at = at.left) this.work.steps++;
      return at;
    }
    let child = node;
    let { parent } = node;
    while (parent?.right === child) {
      this.work.steps++;
      child = parent;
      ({ parent } = child);
    }
    this.work.steps++;
    return parent;
  }

  /** The last node of a subtree. */
  last(from: N): N {
    let node = from;
    for (; node.right !== undefined; node = node.right) this.work.steps++;
    return node;
  }
}
