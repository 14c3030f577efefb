/** The kernel of a guest touches memory in its 1:1 map. */
import { choice, u64 } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { writtenBack } from './cache.ts';
import { endedBy, GFNS, guestOf, LINES, withoutTask } from './machine.ts';
import {
  aimed,
  busy,
  chooseAside,
  chooseCpu,
  chooseFrame,
  chooseValue,
  cpu,
  cpuRuns,
  ended,
  gfn,
  guestLabel,
  isAfflicted,
  line,
  noGuest,
  unplugged,
} from './rows.ts';
import { chooseLine, pageIn, stored, TELLING, wordIn } from './touch.ts';
import { touchRows } from './touching.ts';

const KERNEL_WAYS = ['load', 'store', 'flush', 'copy'] as const;
const kernelDomains = { guest: guestLabel, cpu, gfn, line, how: choice(...KERNEL_WAYS), value: u64() } as const;
type KernelTouch = ArgsOf<typeof kernelDomains>;

const isAbsent = (args: KernelTouch, state: State): boolean => pageIn(args, state).oneToOne === 'absent';

export const kernelTouch = defineTransition({
  name: 'kernel.touch',
  realm: 'mc',
  summary: 'The kernel of a guest touches a frame in its 1:1 map.',
  does: 'the kernel on that CPU loads the word, stores `value`, flushes the line, or copies the word with a fixup for machine checks (`copy_mc_to_kernel()`)',
  tells: 'the word, where it is loaded or copied',
  source: 'arch/x86/mm/fault.c: page_fault_oops(); arch/x86/lib/copy_mc.c: copy_mc_to_kernel()',
  args: kernelDomains,
  mayAlso: [],
  weight: 16,
  guards: [
    noGuest<KernelTouch>('kernel.touch'),
    ended<KernelTouch>('kernel.touch'),
    unplugged<KernelTouch>('kernel.touch'),
    busy<KernelTouch>('kernel.touch'),
    aimed<KernelTouch>(
      { gfn: GFNS },
      {
        id: 'kernel.touch/absent',
        group: 'page',
        only: { feature: 'absent-entries' },
        errno: 'EIO',
        when: 'the 1:1 map does not show the frame, and the copy ends at the fault',
        violated: (args, state) => isAbsent(args, state) && args.how === 'copy',
      },
    ),
    aimed<KernelTouch>(
      { gfn: GFNS },
      {
        id: 'kernel.touch/oops',
        group: 'page',
        only: { feature: 'absent-entries' },
        result: 'oops',
        when: 'the 1:1 map does not show the frame: the task of the CPU is killed',
        violated: (args, state) => isAbsent(args, state) && args.how !== 'copy',
        outcome: () => ({ kind: 'oops' }),
        leaves: (args, state) =>
          guestOf(state, args.guest).alive[Number(args.cpu)] === true
            ? withoutTask(
                state,
                args.guest,
                args.cpu,
                endedBy(args.guest, 'oops', { gfn: args.gfn, context: 'kernel', how: args.how }, args.cpu),
              )
            : state,
      },
    ),
    ...touchRows<KernelTouch>({
      command: 'kernel.touch',
      cpuOf: (args) => args.cpu,
      lineOf: (args) => args.line,
      touchOf: ({ gfn: at, how }) => ({ gfn: at, how, context: how === 'copy' ? 'copy' : 'kernel' }),
      aimed: (row) => aimed({ gfn: GFNS, line: LINES }, row),
    }),
  ],
  accepts: [
    {
      id: 'kernel.touch/stored',
      when: 'the word is stored. A bad line stays bad',
      applies: ({ how }) => how === 'store',
      accept: (args, state) => ({ state: stored(state, args) }),
    },
    {
      id: 'kernel.touch/told',
      when: 'the word is loaded, or copied',
      applies: ({ how }) => TELLING.has(how),
      accept: (args, state) => ({ state, value: wordIn(state, args) }),
    },
    {
      id: 'kernel.touch/flushed',
      when: 'the line is flushed, good or bad, from caches as well',
      accept: (args, state) => ({ state: writtenBack(state, args) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state, (guest) => guest.state === 'running' && guest.cpus.some(cpuRuns));
    if (label === undefined) return undefined;
    const guest = guestOf(state, label);
    const at = chooseFrame(random, guest, random.below(3) > 0 ? isAfflicted : () => true);
    return {
      ...{ guest: label, cpu: chooseCpu(random, guest, cpuRuns), gfn: at, line: chooseLine(random, guest, at) },
      how: pick(random, ['load', 'store', 'flush', 'copy', 'copy']),
      value: chooseValue(random),
    };
  },
});
