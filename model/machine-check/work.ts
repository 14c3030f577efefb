/** What the handler of machine checks has left to a task or to a worker: two steps about a page, between which other CPUs go on. */
import { choice } from '../core/domain.ts';
import type { McGuest, McPage, McWork } from '../core/machine-check.ts';
import { pickOr } from '../core/random.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type ArgsOf, type DrawContext, type Guard } from '../core/transition.ts';
import { writtenBack } from './cache.ts';
import {
  cpuFor,
  cpuOf,
  CPUS,
  endedBy,
  guestOf,
  isOwnOfKernel,
  has,
  lineOf,
  LINES,
  pageOf,
  withEvents,
  withoutTask,
  withPage,
  withWork,
  workOf,
} from './machine.ts';
import { guestFailed } from './memory-failure.ts';
import { aimed, chooseAside, ended, guestLabel, HARNESS, MCE_SOURCE, MF_SOURCE, noGuest, THREAD } from './rows.ts';
import { exited, exitOf, toTask } from './touching.ts';

const BY = [...CPUS, 'worker'] as const;
const stepDomains = { guest: guestLabel, by: choice(...BY) } as const;
type Stepping = ArgsOf<typeof stepDomains>;

/** The rows of both steps of work. Behind them there is work, and the page that it is about. */
const stepRows = (command: string, step: McWork['step']): readonly Guard<Stepping>[] => [
  noGuest<Stepping>(command),
  ended<Stepping>(command),
  aimed<Stepping>(
    { by: BY },
    {
      id: `${command}/busy`,
      errno: 'EBUSY',
      when: 'the CPU is out of the guest, or in the handler of machine checks; the worker runs on CPU 0',
      source: HARNESS,
      violated: (args, state) => cpuOf(state, args.guest, cpuFor(args.by)).stage !== 'runs',
    },
  ),
  aimed<Stepping>(
    { by: BY },
    {
      id: `${command}/nothing-to-do`,
      group: 'page',
      errno: 'ENOENT',
      when: 'no work is at that step',
      source: HARNESS,
      violated: (args, state) => workOf(state, args.guest, args.by)?.step !== step,
    },
  ),
];

const drawStep =
  (step: McWork['step']) =>
  ({ random, state }: DrawContext): Stepping | undefined => {
    const label = chooseAside(random, state, (guest) => BY.some((by) => stepOf(guest, by) === step));
    if (label === undefined) return undefined;
    const guest = guestOf(state, label);
    // A system call that goes on where it met poison is worth waiting for.
    const isRetrying = (by: string): boolean => guest.cpus[Number(by)]?.work?.kills === 'never' && random.below(6) > 0;
    const due = BY.filter((by) => stepOf(guest, by) === step);
    const found = due.filter((by) => !(step === 'recover' && isRetrying(by)));
    if (found.length === 0 && due.length > 0) return undefined;
    return { guest: label, by: pickOr(random, found) ?? '0' };
  };

const stepOf = ({ cpus, worker }: McGuest, by: string): McWork['step'] | undefined =>
  by === 'worker' ? worker[0]?.step : cpus[Number(by)]?.work?.step;

const workAt = (args: Stepping, state: State): McWork => {
  const work = workOf(state, args.guest, args.by);
  if (work === undefined) throw new Error('specification defect: a step without work');
  return work;
};

const pageAt = (args: Stepping, state: State): McPage => pageOf(state, args.guest, workAt(args, state).gfn);

/** Whether the task of the work has the page: as it is, where that is not known to be poisoned, or in any form. */
function hasEntry(args: Stepping, state: State): boolean {
  const { isPoisoned, entries, use } = pageAt(args, state);
  const entry = entries.get(args.by);
  return (entry === 'poison' && isPoisoned) || (entry === 'present' && use !== 'clean' && use !== 'table');
}

const isMaybe = (args: Stepping, state: State): boolean => workAt(args, state).kills === 'maybe';

const isAlive = (args: Stepping, state: State): boolean => guestOf(state, args.guest).alive[Number(args.by)] === true;

/** The kernel has found that it can do nothing about the page, which is its own. */
const isIgnored = (args: Stepping, state: State): boolean => {
  const page = pageAt(args, state);
  return !page.isPoisoned && isOwnOfKernel(page);
};

const failed = (args: Stepping, state: State, next: 'isolate' | undefined): State => {
  const work = workAt(args, state);
  const after = guestFailed(state, args.guest, work.gfn);
  return withWork(after, args.guest, args.by, next && { ...work, step: next, checks: 0 });
};

const killed = (args: Stepping, state: State, before: State): State =>
  withoutTask(
    state,
    args.guest,
    args.by,
    endedBy(args.guest, 'signal', { gfn: workAt(args, before).gfn, context: 'user' }, args.by),
  );

const MEMORY_FAILURE = `${MF_SOURCE}: memory_failure()`;

/** A row about the page of work that is at that step. */
const workRow = (step: McWork['step'], row: Guard<Stepping>): Guard<Stepping> =>
  aimed<Stepping>(
    { by: BY },
    {
      ...row,
      violated: (args, state) => workOf(state, args.guest, args.by)?.step === step && row.violated(args, state),
    },
  );

export const kernelRecover = defineTransition({
  name: 'kernel.recover',
  realm: 'mc',
  summary: 'The first step of work about a page: user space gives it up, and a task that cannot go on is killed.',
  does: 'task work of that CPU, or the worker of the log of machine checks, calls `memory_failure()`',
  source: `${MCE_SOURCE}: kill_me_maybe(), kill_me_never(), uc_decode_notifier(); ${MEMORY_FAILURE}`,
  args: stepDomains,
  mayAlso: [],
  essential: true,
  weight: 24,
  guards: [
    ...stepRows('kernel.recover', 'recover'),
    workRow('recover', {
      id: 'kernel.recover/task-told',
      group: 'page',
      result: 'SIGBUS AR to the task',
      when: 'action is required of a task that has the page: its page table gets a poison entry, and it is killed',
      source: `${MF_SOURCE}: hwpoison_user_mappings(), kill_accessing_process()`,
      violated: (args, state) => isMaybe(args, state) && !isIgnored(args, state) && hasEntry(args, state),
      outcome: () => toTask('AR'),
      leaves: (args, state) =>
        killed(args, failed(args, state, pageAt(args, state).isPoisoned ? undefined : 'isolate'), state),
    }),
    workRow('recover', {
      id: 'kernel.recover/not-recovered',
      group: 'page',
      result: 'SIGBUS to the task',
      when: 'action is required of a task, and the page is the kernel’s own, about which nothing can be done: the task is killed',
      source: `${MCE_SOURCE}: kill_me_maybe(), kill_me_now(); ${MF_SOURCE}: get_hwpoison_page()`,
      violated: (args, state) => isMaybe(args, state) && isIgnored(args, state) && isAlive(args, state),
      outcome: () => toTask('none'),
      leaves: (args, state) => killed(args, failed(args, state, undefined), state),
    }),
    workRow('recover', {
      id: 'kernel.recover/ignored',
      group: 'page',
      errno: 'EBUSY',
      when: 'the page is the kernel’s own, and no task is to be killed for it',
      source: `${MF_SOURCE}: get_hwpoison_page(), action_result()`,
      violated: (args, state) => isIgnored(args, state) && !(isMaybe(args, state) && isAlive(args, state)),
      leaves: (args, state) => failed(args, state, undefined),
    }),
    workRow('recover', {
      id: 'kernel.recover/known',
      group: 'page',
      errno: 'EHWPOISON',
      when: 'the page is known to be poisoned, and no action is required',
      source: MEMORY_FAILURE,
      violated: (args, state) => pageAt(args, state).isPoisoned && !isMaybe(args, state),
      leaves: (args, state) => failed(args, state, undefined),
    }),
  ],
  accepts: [
    {
      id: 'kernel.recover/known-elsewhere',
      when: 'the page is known to be poisoned, and the task has it not (any more): it is isolated again',
      source: `${MF_SOURCE}: kill_accessing_process()`,
      applies: (args, state) => pageAt(args, state).isPoisoned,
      accept: (args, state) => ({ state: failed(args, state, 'isolate') }),
    },
    {
      id: 'kernel.recover/dropped',
      when: 'the page is of a file, and as it is on disk: nobody has it any more, and nobody need be told',
      source: `${MF_SOURCE}: unmap_poisoned_folio(), me_pagecache_clean()`,
      applies: (args, state) => pageAt(args, state).use === 'clean',
      accept: (args, state) => ({ state: failed(args, state, 'isolate') }),
    },
    {
      id: 'kernel.recover/recovered',
      when: 'the page is free, or only tasks have it of which nothing is required: they are told when they touch it',
      accept: (args, state) => ({ state: failed(args, state, 'isolate') }),
    },
  ],
  draw: drawStep('recover'),
});

/** Whether the entry becomes uncacheable and was not; else nothing is flushed. */
const makesUncacheable = (args: Stepping, state: State): boolean =>
  !(has(state, 'isolate-as-told') && workAt(args, state).saysUnmapped) && pageAt(args, state).oneToOne === 'present';

/** The first line whose flush leaves the guest; undefined where all of them can be flushed. */
function firstGone(args: Stepping, state: State): '0' | '1' | undefined {
  const page = pageAt(args, state);
  if (page.isTaken) return '0';
  // Poison that the first flush writes back is reported, and the host takes the page before the second.
  return lineOf(page, '0')?.cached === 'poisoned' ? '1' : undefined;
}

/** The entry becomes uncacheable, and then these lines are flushed, one by one. */
function flushed(args: Stepping, state: State, lines: readonly string[]): State {
  const { gfn } = workAt(args, state);
  const changed = withPage(state, args.guest, gfn, { oneToOne: 'uncacheable' });
  return lines.reduce((now, line) => writtenBack(now, { guest: args.guest, gfn, line }), changed);
}

const isolated = (args: Stepping, state: State, change: Partial<McPage>, touched: number): State => {
  const { gfn } = workAt(args, state);
  const after = withWork(withPage(state, args.guest, gfn, change), args.guest, args.by, undefined);
  return withEvents(after, { isolations: [{ vm: args.guest, gfn: Number(gfn), touched }] });
};

export const kernelIsolate = defineTransition({
  name: 'kernel.isolate',
  realm: 'mc',
  summary: 'The second step of work about a page: the 1:1 map is changed, so that nothing is loaded by speculation.',
  does: 'the same task work or worker calls `set_mce_nospec()`',
  source: `arch/x86/mm/pat/set_memory.c: set_mce_nospec(); ${THREAD}`,
  args: stepDomains,
  mayAlso: [],
  essential: true,
  weight: 24,
  guards: [
    ...stepRows('kernel.isolate', 'isolate'),
    workRow('isolate', {
      id: 'kernel.isolate/flushes-what-is-gone',
      only: { feature: 'flush-exits' },
      result: 'SIGBUS AR to the VMM, MEMORY_FAULT EHWPOISON',
      when: 'the page becomes uncacheable, which flushes its lines, and the host has taken it, or does so because poison was flushed: the flush of the next line leaves the guest',
      source: `${THREAD}; arch/x86/mm/pat/set_memory.c: cpa_flush()`,
      violated: (args, state) => makesUncacheable(args, state) && firstGone(args, state) !== undefined,
      outcome: (args, state) => exitOf(state, args.guest, workAt(args, state).gfn),
      leaves: (args, state) => {
        const { gfn } = workAt(args, state);
        const gone = firstGone(args, state) ?? '0';
        const before = LINES.slice(0, Number(gone));
        const touch = { gfn, context: 'kernel', how: 'isolate' } as const;
        const after = exited(flushed(args, state, before), args.guest, cpuFor(args.by), touch, gone);
        const touched = before.length + 1;
        return withEvents(after, { isolations: [{ vm: args.guest, gfn: Number(gfn), touched }] });
      },
    }),
  ],
  accepts: [
    {
      id: 'kernel.isolate/absent-as-told',
      only: { feature: 'isolate-as-told' },
      when: 'the machine check said that the page was unmapped: the entry is not present any more, and no line is touched',
      source: `${THREAD}: Borislav Petkov`,
      applies: (args, state) => workAt(args, state).saysUnmapped,
      accept: (args, state) => ({ state: isolated(args, state, { oneToOne: 'absent' }, 0) }),
    },
    {
      id: 'kernel.isolate/as-before',
      only: { feature: 'isolate-uncacheable' },
      when: 'the entry was changed before: nothing is flushed',
      source: 'arch/x86/mm/pat/set_memory.c: change_page_attr_set_clr()',
      applies: (args, state) => pageAt(args, state).oneToOne !== 'present',
      accept: (args, state) => ({ state: isolated(args, state, {}, 0) }),
    },
    {
      id: 'kernel.isolate/uncacheable',
      only: { feature: 'isolate-uncacheable' },
      when: 'the entry becomes uncacheable, and both lines are flushed, so that no cache has them; nothing comes of that on hardware',
      accept: (args, state) => ({ state: isolated(args, flushed(args, state, LINES), {}, LINES.length) }),
    },
    {
      id: 'kernel.isolate/absent',
      only: { feature: 'isolate-absent' },
      when: 'the entry is not present any more, by way of another address: no line is touched',
      accept: (args, state) => ({ state: isolated(args, state, { oneToOne: 'absent' }, 0) }),
    },
    {
      id: 'kernel.isolate/left-as-it-is',
      only: { feature: 'isolate-nothing' },
      when: 'a hypervisor is seen: nothing is done',
      accept: (args, state) => ({ state: isolated(args, state, {}, 0) }),
    },
  ],
  draw: drawStep('isolate'),
});
