/** The kernel of a guest gives memory to its tasks and to itself. */
import { choice } from '../core/domain.ts';
import type { McHow, McPage } from '../core/machine-check.ts';
import { pick } from '../core/random.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import {
  cpuOf,
  CPUS,
  freed,
  GFNS,
  guestOf,
  LINES,
  pageOf,
  poisonEntries,
  storedTo,
  withGuest,
  withPage,
} from './machine.ts';
import {
  aimed,
  busy,
  chooseCpu,
  chooseFrame,
  chooseAside,
  cpu,
  cpuRuns,
  ended,
  frameDomains,
  gfn,
  guestLabel,
  HARNESS,
  isAfflicted,
  noGuest,
  unplugged,
  type OnGuest,
} from './rows.ts';
import { touchRows } from './touching.ts';

const allocDomains = {
  guest: guestLabel,
  gfn,
  use: choice('anon', 'clean', 'dirty', 'kernel', 'table'),
  owner: choice('0', '1', 'both'),
  cpu,
} as const;
type Alloc = ArgsOf<typeof allocDomains>;

const ownersOf = ({ use, owner }: Alloc): readonly string[] =>
  use === 'kernel' ? [] : owner === 'both' ? CPUS : [owner];

/** The page as it is given to the tasks: zeroed, but what is bad stays so. Other tasks keep what tells them of poison. */
const allocated = (page: McPage, args: Alloc): Partial<McPage> => ({
  use: args.use,
  entries: new Map([...poisonEntries(page), ...ownersOf(args).map((task) => [task, 'present'] as const)]),
  backing: page.backing && { ...page.backing, lines: page.backing.lines.map((line) => storedTo(line, 0n)) },
});

const [ZEROING] = touchRows<Alloc>({
  command: 'page.alloc',
  cpuOf: (args) => args.cpu,
  lineOf: () => LINES[0],
  touchOf: (args) => ({ gfn: args.gfn, context: 'kernel', how: 'zero' satisfies McHow }),
  aimed: (row) => aimed({ gfn: GFNS }, row),
});
if (ZEROING === undefined) throw new Error('specification defect: zeroing touches nothing');

export const pageAlloc = defineTransition({
  name: 'page.alloc',
  realm: 'mc',
  summary: 'The kernel takes a free frame, zeroes it, and gives it to a use.',
  does: 'the kernel on that CPU takes the frame, stores zero to both lines through its 1:1 map, and puts it into the page tables of the `owner`',
  source: 'mm/page_alloc.c: get_page_from_freelist(), prep_new_page(); arch/x86/include/asm/page_64.h: clear_page()',
  args: allocDomains,
  mayAlso: [],
  builds: true,
  essential: true,
  weight: 20,
  guards: [
    noGuest<Alloc>('page.alloc'),
    ended<Alloc>('page.alloc'),
    unplugged<Alloc>('page.alloc'),
    aimed<Alloc>(
      { owner: ['0', '1', 'both'] },
      {
        id: 'page.alloc/no-task',
        errno: 'ENOENT',
        when: 'an owner was killed',
        source: HARNESS,
        violated: (args, state) =>
          ownersOf(args).some((task) => guestOf(state, args.guest).alive[Number(task)] !== true),
      },
    ),
    busy<Alloc>('page.alloc'),
    aimed<Alloc>(
      { gfn: GFNS },
      {
        id: 'page.alloc/in-use',
        errno: 'EBUSY',
        when: 'the frame is not free',
        source: HARNESS,
        violated: (args, state) => pageOf(state, args.guest, args.gfn).use !== 'free',
      },
    ),
    aimed<Alloc>(
      { gfn: GFNS },
      {
        id: 'page.alloc/poisoned',
        errno: 'EHWPOISON',
        when: 'the kernel knows the frame to be poisoned, so that it is not on its free list',
        source: 'mm/page_alloc.c: free_pages_prepare(); mm/memory-failure.c: take_page_off_buddy()',
        violated: (args, state) => pageOf(state, args.guest, args.gfn).isPoisoned,
      },
    ),
    aimed<Alloc>(
      { gfn: GFNS },
      {
        id: 'page.alloc/lost',
        errno: 'EBUSY',
        when: 'the frame was freed while it was poisoned, so that it is not on the free list, although nobody has it and it was unpoisoned since',
        source: 'mm/page_alloc.c: free_pages_prepare(); mm/memory-failure.c: unpoison_memory()',
        violated: (args, state) => pageOf(state, args.guest, args.gfn).isLost,
      },
    ),
    ZEROING,
  ],
  accepts: [
    {
      id: 'page.alloc/allocated',
      when: 'the frame is free',
      accept: (args, state) => ({
        state: withPage(state, args.guest, args.gfn, allocated(pageOf(state, args.guest, args.gfn), args)),
      }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state);
    if (label === undefined) return undefined;
    const guest = guestOf(state, label);
    const prefersBad = random.below(2) === 0;
    const isWanted = (page: McPage): boolean => page.use === 'free' && (!prefersBad || isAfflicted(page));
    const isLost = (page: McPage): boolean => page.isLost && !page.isPoisoned;
    const hasLost = guest.pages.some((page) => page !== undefined && isLost(page));
    return {
      guest: label,
      gfn: chooseFrame(random, guest, hasLost && prefersBad ? isLost : isWanted),
      use: pick(random, ['anon', 'anon', 'clean', 'dirty', 'kernel', 'table']),
      owner: pick(random, ['0', '0', '1', 'both']),
      cpu: chooseCpu(random, guest, cpuRuns),
    };
  },
});

type Freeing = ArgsOf<typeof frameDomains>;

export const pageFree = defineTransition({
  name: 'page.free',
  realm: 'mc',
  summary: 'Nobody uses a frame any more: it is free again, unless it is poisoned.',
  does: 'whoever has the frame unmaps it, and the kernel frees it',
  source: 'mm/page_alloc.c: free_pages_prepare()',
  args: frameDomains,
  mayAlso: [],
  weight: 5,
  guards: [
    noGuest<Freeing>('page.free'),
    ended<Freeing>('page.free'),
    unplugged<Freeing>('page.free'),
    aimed<Freeing>(
      { gfn: GFNS },
      {
        id: 'page.free/free',
        errno: 'ENOENT',
        when: 'the frame is free',
        source: HARNESS,
        violated: (args, state) => pageOf(state, args.guest, args.gfn).use === 'free',
      },
    ),
  ],
  accepts: [
    {
      id: 'page.free/freed',
      when: 'the frame is in use',
      accept: (args, state) => ({
        state: withPage(state, args.guest, args.gfn, freed(pageOf(state, args.guest, args.gfn))),
      }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state);
    if (label === undefined) return undefined;
    const prefersPoisoned = random.below(2) === 0;
    const isWanted = ({ use, isPoisoned }: McPage): boolean => use !== 'free' && (!prefersPoisoned || isPoisoned);
    return { guest: label, gfn: chooseFrame(random, guestOf(state, label), isWanted) };
  },
});

const startDomains = { guest: guestLabel, task: choice(...CPUS) } as const;
type Start = ArgsOf<typeof startDomains>;

const isAlive = (args: OnGuest & { readonly task: string }, state: State): boolean =>
  guestOf(state, args.guest).alive[Number(args.task)] === true;

const startRow = (id: string, when: string, violated: (args: Start, state: State) => boolean) =>
  aimed<Start>({ task: CPUS }, { id: `task.start/${id}`, errno: 'EBUSY', when, source: HARNESS, violated });

export const taskStart = defineTransition({
  name: 'task.start',
  realm: 'mc',
  summary: 'Another task takes the place of one that was killed.',
  does: 'the kernel starts a task on that CPU',
  source: 'kernel/fork.c: kernel_clone()',
  args: startDomains,
  mayAlso: [],
  weight: 6,
  guards: [
    noGuest<Start>('task.start'),
    ended<Start>('task.start'),
    aimed<Start>(
      { task: CPUS },
      {
        id: 'task.start/alive',
        errno: 'EEXIST',
        when: 'the task is alive',
        source: HARNESS,
        violated: isAlive,
      },
    ),
    startRow(
      'busy',
      'its CPU is out of the guest, or in the handler of machine checks',
      (args, state) => cpuOf(state, args.guest, args.task).stage !== 'runs',
    ),
    startRow(
      'work-left',
      'the task that was killed has work left',
      (args, state) => cpuOf(state, args.guest, args.task).work !== undefined,
    ),
  ],
  accepts: [
    {
      id: 'task.start/started',
      when: 'the CPU has no task',
      accept: (args, state) => {
        const { alive } = guestOf(state, args.guest);
        return {
          state: withGuest(state, args.guest, {
            alive: alive.map((each, task) => (task === Number(args.task) ? true : each)),
          }),
        };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state, (guest) => guest.state === 'running' && guest.alive.includes(false));
    if (label === undefined) return undefined;
    return { guest: label, task: guestOf(state, label).alive[0] === true ? '1' : '0' };
  },
});
