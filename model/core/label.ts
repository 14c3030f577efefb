/** What things are called in programs. The state has more, and parts of it are in files of their own. */

/** A name chosen by the command that creates the thing, such as `vm0`; never used twice in a program. */
export type Label = string;

/** An address of the host process: `offset` bytes into the mapping called `base`, or a bare number where base is ''. */
export interface Address {
  readonly base: Label;
  readonly offset: bigint;
}
