/**
 * Other programs to the same end. A shrinker that changes one thing at a time cannot get from one way of reaching a page
 * to another, so the ways are named here.
 */
import { GMEM_FLAG, PAGE_MASK, PAGE_SHIFT } from '../core/abi.ts';
import type { Program } from '../core/program.ts';
import type { AnyCommand, Specification } from '../core/specification.ts';
import { openAs, type Label } from '../core/state.ts';
import type { Args } from '../core/transition.ts';
import { bytes } from './choose.ts';
import { gfnAt, isFound, resolveGfn, vmOfVcpu } from './guest-fault.ts';

/** Commands that only serve to let a guest reach a page. */
const WAYS: readonly string[] = ['vcpu.create', 'slot.set', 'vcpu.prefault', 'guest.load', 'guest.store'];

/** The mapping that a rewrite adds. */
const MAP: Label = 'mapx';

/** A load or store of the guest that reaches guest memory, and where in which inode. */
interface Reached {
  readonly at: number;
  readonly inode: Label;
  readonly offset: bigint;
}

function guestAccesses(specification: Specification, program: Program): readonly Reached[] {
  const reached: Reached[] = [];
  let state = specification.initial;
  program.forEach((command, at) => {
    const { vcpu, gpa } = command.args;
    if (isGuestAccess(command) && typeof vcpu === 'string' && typeof gpa === 'bigint') {
      const vm = openAs(state, vcpu, 'vcpu') === undefined ? undefined : vmOfVcpu(state, vcpu);
      const found = vm === undefined ? 'no-slot' : resolveGfn(state, vm, gfnAt(gpa));
      if (isFound(found)) reached.push({ at, inode: found.inode, offset: bytes(found.page) + (gpa & PAGE_MASK) });
    }
    state = specification.step(state, command).state;
  });
  return reached;
}

const isGuestAccess = ({ name }: AnyCommand): boolean => name === 'guest.load' || name === 'guest.store';

/** Lets the host reach through a mapping what a guest reaches through a slot: that takes no vCPU and no slot. */
export function* throughTheHost(specification: Specification, program: Program): Iterable<Program> {
  const accesses = guestAccesses(specification, program);
  for (const inode of new Set(accesses.map((access) => access.inode))) {
    const created = program.findIndex(({ name, args }) => name === 'gmem.create' && args['file'] === inode);
    if (created < 0 || program.some(({ args }) => args['mapping'] === MAP)) continue;
    const { size } = (program[created] as AnyCommand).args;
    yield program.flatMap((command, index): AnyCommand[] => {
      if (index === created) return [sharedWithHost(command), mapped(inode, size as bigint)];
      const access = accesses.find(({ at, inode: reached }) => at === index && reached === inode);
      if (access !== undefined) return [throughMapping(command, access.offset)];
      return WAYS.includes(command.name) ? [] : [command];
    });
  }
}

/** Marks a page by a word that the host stores, in place of a memory failure, and looks for the mark in the end. */
export function* contentInPlaceOfPoison(_specification: Specification, program: Program): Iterable<Program> {
  for (const { name, args } of program) {
    const { fd, page } = args;
    const created = program.findIndex((other) => other.name === 'gmem.create' && other.args['file'] === fd);
    if (name !== 'memory.fail' || created < 0 || program.some((other) => other.args['mapping'] === MAP)) continue;
    const at = { mapping: MAP, offset: (page as bigint) << PAGE_SHIFT };
    const { size } = (program[created] as AnyCommand).args;
    yield program.flatMap((command, index): AnyCommand[] => {
      if (index === created)
        return [
          sharedWithHost(command),
          mapped(fd as Label, size as bigint),
          { name: 'host.store', args: { ...at, value: 1n } },
        ];
      if (index === program.length - 1) return [{ name: 'host.load', args: at }];
      return [...WAYS, 'memory.fail', 'mem.map', 'host.load', 'host.store'].includes(command.name) ? [] : [command];
    });
  }
}

const sharedWithHost = ({ name, args }: AnyCommand): AnyCommand => ({
  name,
  args: { ...args, flags: GMEM_FLAG.MMAP | GMEM_FLAG.INIT_SHARED },
});

const mapped = (fd: Label, length: bigint): AnyCommand => ({
  name: 'mem.map',
  args: { mapping: MAP, fd, length, offset: 0n, sharing: 'shared' },
});

function throughMapping({ name, args: { value } }: AnyCommand, offset: bigint): AnyCommand {
  const args: Args = { mapping: MAP, offset, ...(value === undefined ? {} : { value }) };
  return { name: name === 'guest.load' ? 'host.load' : 'host.store', args };
}
