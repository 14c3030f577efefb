/** Tasks of a guest touch memory, or somebody does on behalf of them. */
import { choice, u64 } from '../core/domain.ts';
import type { McCpu, McGuest, McHow, McPage } from '../core/machine-check.ts';
import { pick, type Random } from '../core/random.ts';
import type { Label, State } from '../core/state.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { writtenBack } from './cache.ts';
import {
  cpuOf,
  CPUS,
  endedBy,
  GFNS,
  guestOf,
  lineOf,
  LINES,
  pageAt,
  pageOf,
  storedTo,
  withLine,
  withoutTask,
  withPage,
} from './machine.ts';
import {
  aimed,
  chooseCpu,
  chooseFrame,
  chooseGuest,
  chooseValue,
  cpuRuns,
  ended,
  gfn,
  guestLabel,
  HARNESS,
  isAfflicted,
  isStillCopying,
  line,
  MF_SOURCE,
  noGuest,
  unplugged,
} from './rows.ts';
import { touchRows, toTask } from './touching.ts';

interface Storing {
  readonly guest: Label;
  readonly gfn: string;
  readonly line: string;
  readonly value: bigint;
}

/** The page with the word in its line; a bad line stays so. */
export function stored(
  state: State,
  { guest, gfn: at, line: which, value }: Storing,
  change: Partial<McPage> = {},
): State {
  const page = pageOf(state, guest, at);
  const line = lineOf(page, which);
  const backing = page.backing && line && withLine(page.backing, which, storedTo(line, value));
  return withPage(state, guest, at, { ...change, backing });
}

export const wordIn = (state: State, args: Omit<Storing, 'value'>): bigint =>
  lineOf(pageOf(state, args.guest, args.gfn), args.line)?.value ?? 0n;

const TASK_WAYS = ['load', 'store', 'fetch', 'flush', 'walk', 'copyin'] as const;
const taskDomains = {
  guest: guestLabel,
  task: choice(...CPUS),
  gfn,
  line,
  how: choice(...TASK_WAYS),
  value: u64(),
} as const;
type TaskTouch = ArgsOf<typeof taskDomains>;

export const pageIn = (args: { readonly guest: Label; readonly gfn: string }, state: State): McPage =>
  pageOf(state, args.guest, args.gfn);

const ownCpu = (args: TaskTouch, state: State): McCpu => cpuOf(state, args.guest, args.task);

export const TELLING: ReadonlySet<McHow> = new Set(['load', 'copyin', 'copy']);

export const taskTouch = defineTransition({
  name: 'task.touch',
  realm: 'mc',
  summary: 'A task of a guest touches its memory, or the CPU or a system call does so on behalf of it.',
  does: 'the task, in user mode, loads the word, stores `value`, executes it or flushes the line; or the CPU walks a page table that is there; or a system call copies the word in',
  tells: 'the word, where it is loaded or copied in',
  source: `arch/x86/mm/fault.c: do_sigbus(); ${MF_SOURCE}: unmap_poisoned_folio()`,
  args: taskDomains,
  mayAlso: [],
  essential: true,
  weight: 90,
  guards: [
    noGuest<TaskTouch>('task.touch'),
    ended<TaskTouch>('task.touch'),
    unplugged<TaskTouch>('task.touch'),
    aimed<TaskTouch>(
      { task: CPUS },
      {
        id: 'task.touch/no-task',
        errno: 'ENOENT',
        when: 'the task was killed',
        source: HARNESS,
        violated: (args, state) => guestOf(state, args.guest).alive[Number(args.task)] !== true,
      },
    ),
    aimed<TaskTouch>(
      { task: CPUS },
      {
        id: 'task.touch/busy',
        group: 'cpu',
        errno: 'EBUSY',
        when: 'the CPU is out of the guest, or in the handler of machine checks',
        source: HARNESS,
        violated: (args, state) => ownCpu(args, state).stage !== 'runs',
      },
    ),
    aimed<TaskTouch>(
      { task: CPUS, how: ['load', 'copyin'] },
      {
        id: 'task.touch/work-left',
        group: 'cpu',
        errno: 'EBUSY',
        when: 'the task has work left before it can go on in user mode; a system call that has met poison can go on',
        source: 'arch/x86/kernel/cpu/mce/core.c: queue_task_work()',
        violated: (args, state) => {
          const own = ownCpu(args, state);
          return own.work !== undefined && !(args.how === 'copyin' && isStillCopying(own));
        },
      },
    ),
    aimed<TaskTouch>(
      { gfn: GFNS },
      {
        id: 'task.touch/no-page',
        errno: 'ENOENT',
        when: 'the task does not have the frame, or not as a page of that kind',
        source: HARNESS,
        violated: (args, state) => {
          const { use, entries } = pageIn(args, state);
          const entry = entries.get(args.task);
          return entry === undefined || (entry === 'present' && use === 'table') !== (args.how === 'walk');
        },
      },
    ),
    aimed<TaskTouch>(
      { gfn: GFNS },
      {
        id: 'task.touch/copy-of-poison',
        group: 'page',
        errno: 'EFAULT',
        when: 'the page table has a poison entry, and it is the kernel that touches it for the task',
        source: 'arch/x86/mm/fault.c: kernelmode_fixup_or_oops()',
        violated: (args, state) => args.how === 'copyin' && pageIn(args, state).entries.get(args.task) === 'poison',
      },
    ),
    aimed<TaskTouch>(
      { gfn: GFNS },
      {
        id: 'task.touch/poison-entry',
        group: 'page',
        result: 'SIGBUS AR to the task',
        when: 'the page table has a poison entry: the task is killed',
        source: 'mm/memory.c: do_swap_page(); arch/x86/mm/fault.c: do_sigbus()',
        violated: (args, state) => args.how !== 'copyin' && pageIn(args, state).entries.get(args.task) === 'poison',
        outcome: () => toTask('AR'),
        leaves: (args, state) =>
          withoutTask(
            state,
            args.guest,
            args.task,
            endedBy(args.guest, 'signal', { gfn: args.gfn, context: 'user', how: args.how }, args.task),
          ),
      },
    ),
    ...touchRows<TaskTouch>({
      command: 'task.touch',
      cpuOf: ({ task }) => task,
      lineOf: (args) => args.line,
      touchOf: ({ gfn: at, how }) => ({ gfn: at, how, context: how === 'copyin' ? 'copyin' : 'user' }),
      aimed: (row) => aimed({ gfn: GFNS, line: LINES }, row),
    }),
  ],
  accepts: [
    {
      id: 'task.touch/stored',
      when: 'the word is stored; a page of a file is not as on disk any more. A bad line stays bad',
      applies: ({ how }) => how === 'store',
      accept: (args, state) => ({
        state: stored(state, args, pageIn(args, state).use === 'clean' ? { use: 'dirty' } : {}),
      }),
    },
    {
      id: 'task.touch/told',
      when: 'the word is loaded, or copied in',
      applies: ({ how }) => TELLING.has(how),
      accept: (args, state) => ({ state, value: wordIn(state, args) }),
    },
    {
      id: 'task.touch/flushed',
      when: 'the line is flushed, good or bad, from caches as well',
      applies: ({ how }) => how === 'flush',
      accept: (args, state) => ({ state: writtenBack(state, args) }),
    },
    {
      id: 'task.touch/done',
      when: 'what is in the line is executed, or walked',
      accept: (_args, state) => ({ state }),
    },
  ],
  draw: ({ random, state }) => {
    const copying =
      random.below(8) > 0 ? chooseGuest(random, state, ({ cpus }) => cpus.some(isStillCopying)) : undefined;
    const still = copying === undefined ? undefined : copyingTask(random, guestOf(state, copying));
    if (copying !== undefined && still !== undefined) return { ...still, guest: copying, value: 0n };
    const label = chooseGuest(random, state, (guest) => guest.state === 'running' && guest.cpus.some(cpuRuns));
    if (label === undefined) return undefined;
    const guest = guestOf(state, label);
    const task = chooseCpu(random, guest, ({ stage, work }) => stage === 'runs' && work === undefined);
    const hasSome = guest.pages.some((page) => page?.entries.has(task));
    if (!hasSome && random.below(8) > 0) return undefined;
    const prefersBad = random.below(3) > 0;
    const at = chooseFrame(random, guest, (page) => page.entries.has(task) && (!prefersBad || isAfflicted(page)));
    return {
      ...{ guest: label, task, gfn: at, line: chooseLine(random, guest, at) },
      how:
        pageAt(guest, at)?.use === 'table'
          ? 'walk'
          : pick(random, ['load', 'load', 'store', 'fetch', 'flush', 'copyin', 'copyin']),
      value: chooseValue(random),
    };
  },
});

/** The touch of a system call that goes on where it has met poison. */
function copyingTask(random: Random, guest: McGuest): Pick<TaskTouch, 'task' | 'gfn' | 'line' | 'how'> | undefined {
  const task = CPUS.find((each) => {
    const found = guest.cpus[Number(each)];
    return found?.stage === 'runs' && isStillCopying(found);
  });
  const work = guest.cpus[Number(task)]?.work;
  const same = GFNS.find((each) => each === work?.gfn);
  // Another page ends the guest, and so is met best at once.
  const at = random.below(work?.checks === 1 ? 4 : 40) === 0 ? chooseFrame(random, guest, isAfflicted) : same;
  if (task === undefined || at === undefined) return undefined;
  return { task, gfn: at, line: badLine(guest, at) ?? '0', how: 'copyin' };
}

const badLine = (guest: McGuest, at: string) =>
  LINES.find((each) => pageAt(guest, at)?.backing?.lines[Number(each)]?.isBad === true);

export const chooseLine = (random: Random, guest: McGuest, at: string): (typeof LINES)[number] =>
  (random.below(3) > 0 ? badLine(guest, at) : undefined) ?? pick(random, LINES);
