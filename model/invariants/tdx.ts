import type { HostWriteEvent } from '../core/state.ts';
import type { Condition } from '../core/profile.ts';
import { clause, hex, type Invariant } from './invariant.ts';
import { contained as containedInGuests } from './machine-check.ts';

const only: Condition = { realm: 'td' };

const told = ({ frame, line, via }: HostWriteEvent): string =>
  `the host stored to line ${line} of frame ${hex(frame)}, which is TD-private, by way of ${via}`;

const noHostWrite = clause(['hostWrites'], ({ after: { hostWrites } }) => {
  const [write] = hostWrites;
  return write && told(write);
});

/** What user space can bring about by itself. */
const BY_USER: ReadonlySet<string> = new Set(['user', 'gup', 'dma'] satisfies HostWriteEvent['via'][]);

const noUserWrite = clause(['hostWrites'], ({ after: { hostWrites } }) => {
  const write = hostWrites.find(({ via }) => BY_USER.has(via));
  return write && told(write);
});

const notMapped = clause(['hostMaps', 'tdPages'], ({ after: { hostMaps, tdPages } }) => {
  for (const { vm, gfn, frame, by } of hostMaps) {
    const page = tdPages.find((each) => each.frame === frame && each.state !== 'exported');
    if (page !== undefined)
      return `a mapping of ${by === 'dma' ? 'a device' : 'user space'}, of gfn ${hex(gfn)} of ${vm}, shows frame ${hex(frame)}, which is private to ${page.vm}`;
  }
  return undefined;
});

const contained = clause(['consumptions'], ({ after: { consumptions } }) => {
  const wrong = consumptions.find(({ by, ended, recoverable }) => recoverable && by !== 'kernel' && ended !== by);
  return wrong && `the ${wrong.by} consumed poison where the core could go on, and that ended the ${wrong.ended}`;
});

const poisonEndsSomebody = clause(['consumptions', 'vms'], ({ after: { consumptions, vms } }) => {
  const down = consumptions.some(({ ended }) => ended === 'machine');
  const [left] = vms;
  return down && left !== undefined ? `poison ended the machine, and ${left.vm} is there still` : undefined;
});

const THREAD = 'RFC v1 "KVM: unmap guest memory using poisoned pages", April 2021';

export const tdInvariants: readonly Invariant[] = [
  {
    id: 'td/no-host-write',
    sentence:
      'No host write (a store of the kernel or of user space, zeroing, DMA, a copy) reaches a page while it is TD-private.',
    source: `${THREAD}, cover letter`,
    only,
    clauses: [noHostWrite],
  },
  {
    id: 'td/no-user-write',
    sentence:
      'No write that user space can make, by its mapping, through a system call or by a device, reaches a page while it is TD-private.',
    source: `${THREAD}, patch 7`,
    only,
    clauses: [noUserWrite],
  },
  {
    id: 'td/not-mapped-by-host',
    sentence: 'No mapping of user space or of a device shows a page while it is TD-private.',
    source: `${THREAD}, patch 7`,
    only,
    clauses: [notMapped],
  },
  {
    id: 'poison/contained',
    sentence:
      'Consuming poison ends the guest that consumed it; it ends the machine only where the core cannot go on, or where the kernel itself consumed it. No guest is ended because it isolates a page, and no task for a page that is not its own.',
    source: `${THREAD}, cover letter; arch/x86/kvm/vmx/tdx.c: tdx_handle_exit(); arch/x86/kernel/cpu/mce/core.c: kill_me_maybe()`,
    only: { realm: ['td', 'mc'] },
    clauses: [contained, poisonEndsSomebody, ...containedInGuests],
  },
];
