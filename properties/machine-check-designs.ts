/** For each invariant that a design for machine checks concedes, the shortest program that breaks it. */
import type { Flaw } from './flaws.ts';

const text = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('');

/** The worker of a kernel isolates a page that the scrubber of the hardware found. */
const SCRUBBED = text([
  'guest.create guest=guest0 memory=ordinary',
  'hw.poison guest=guest0 gfn=0 line=0',
  'hw.scrub guest=guest0 gfn=0',
  'kernel.recover guest=guest0 by=worker',
  'kernel.isolate guest=guest0 by=worker',
]);

/** A VMM tells a guest of a page that is bad, and the guest's kernel has it isolated by its work. */
const RECOVERED = [
  'guest.create guest=guest0 memory=ordinary',
  'mce.set guest=guest0 cpu=0 bank=0 severity=required valid=yes gfn=0',
  'kernel.handle guest=guest0 cpu=0',
  'kernel.recover guest=guest0 by=0',
];
const ISOLATED = text([...RECOVERED, 'kernel.isolate guest=guest0 by=0']);

/** The flush leaves the guest, and comes back as a machine check in the kernel. */
const SECOND = ['vmm.answer guest=guest0 by=0', 'kernel.handle guest=guest0 cpu=0'];

/** Each invariant that a profile concedes. */
export const FLAWS: readonly Flaw[] = [
  { profile: 'bare-metal', invariant: 'poison/isolate-untouched', program: SCRUBBED },
  { profile: 'set-uc-in-guest', invariant: 'poison/isolate-untouched', program: ISOLATED },
  {
    profile: 'set-uc-in-guest',
    invariant: 'poison/contained',
    program: text([
      'guest.create guest=guest0 memory=ordinary',
      'page.simulate guest=guest0 gfn=0 where=host',
      'vmm.answer guest=guest0 by=main',
      'kernel.handle guest=guest0 cpu=0',
      'kernel.recover guest=guest0 by=worker',
      'kernel.isolate guest=guest0 by=worker',
      ...SECOND,
    ]),
  },
  { profile: 'guest-check', invariant: 'poison/isolated', program: ISOLATED },
  { profile: 'vmm-signals-unmap', invariant: 'poison/isolate-untouched', program: ISOLATED },
  {
    profile: 'vmm-signals-unmap',
    invariant: 'poison/contained',
    program: text([
      ...RECOVERED,
      'page.simulate guest=guest0 gfn=0 where=host',
      'kernel.isolate guest=guest0 by=0',
      ...SECOND,
    ]),
  },
];
