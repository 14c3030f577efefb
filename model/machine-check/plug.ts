/** Memory of a guest goes and comes while it runs. */
import type { McGuest } from '../core/machine-check.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { bothRun } from './life.ts';
import { GFNS, guestOf, newPage, pageAt, pageOf, withGuest, withMachine } from './machine.ts';
import {
  aimed,
  aimedAtPlug,
  chooseFrame,
  chooseAside,
  ended,
  frameDomains,
  HARNESS,
  isAfflicted,
  noGuest,
  unplugged,
} from './rows.ts';

type Plugging = ArgsOf<typeof frameDomains>;

/** Whether anybody has still to do something about the frame. */
const isPending = ({ cpus, worker, told }: McGuest, gfn: string): boolean =>
  told.includes(gfn) || [...worker, ...cpus.map(({ work }) => work)].some((work) => work?.gfn === gfn);

const withPages = (state: State, args: Plugging, page: McGuest['pages'][number]): State => {
  const { pages } = guestOf(state, args.guest);
  return withGuest(state, args.guest, { pages: pages.map((each, at) => (at === Number(args.gfn) ? page : each)) });
};

const inUse = (row: Omit<Guard<Plugging> & { errno: 'EBUSY' }, 'group'>): Guard<Plugging> =>
  aimed<Plugging>({ gfn: GFNS }, { ...row, group: 'use' });

export const guestUnplug = defineTransition({
  name: 'guest.unplug',
  realm: 'mc',
  only: { feature: 'virtual' },
  summary: 'The kernel of a guest gives a frame back, and the VMM removes it.',
  does: 'tasks unmap what tells them of poison in the frame, the guest offlines its memory block, and the VMM unmaps the memory',
  source: 'mm/memory_hotplug.c: offline_pages(), do_migrate_range()',
  args: frameDomains,
  mayAlso: [],
  weight: 3,
  guards: [
    noGuest<Plugging>('guest.unplug'),
    ended<Plugging>('guest.unplug'),
    unplugged<Plugging>('guest.unplug'),
    bothRun<Plugging>('guest.unplug'),
    inUse({
      id: 'guest.unplug/pending',
      errno: 'EBUSY',
      when: 'work, a report of the worker, or something that the VMM was told is about the frame',
      source: HARNESS,
      violated: (args, state) => isPending(guestOf(state, args.guest), args.gfn),
    }),
    inUse({
      id: 'guest.unplug/in-use',
      errno: 'EBUSY',
      when: 'the frame is in use, and not poisoned for the kernel',
      source: HARNESS,
      violated: (args, state) => {
        const { use, isPoisoned } = pageOf(state, args.guest, args.gfn);
        return use !== 'free' && !isPoisoned;
      },
    }),
  ],
  accepts: [
    {
      id: 'guest.unplug/removed',
      when: 'the frame is free, or poisoned: the memory is gone, and with it what was bad in it',
      accept: (args, state) => ({ state: withPages(state, args, undefined) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state);
    if (label === undefined) return undefined;
    return { guest: label, gfn: chooseFrame(random, guestOf(state, label), isAfflicted) };
  },
});

export const guestPlug = defineTransition({
  name: 'guest.plug',
  realm: 'mc',
  only: { feature: 'virtual' },
  summary: 'The VMM gives a guest other memory where a frame was unplugged.',
  does: 'the VMM maps memory there, and the guest onlines it',
  source: 'mm/memory_hotplug.c: online_pages()',
  args: frameDomains,
  mayAlso: [],
  weight: 3,
  guards: [
    noGuest<Plugging>('guest.plug'),
    ended<Plugging>('guest.plug'),
    aimedAtPlug<Plugging>({
      id: 'guest.plug/plugged',
      errno: 'EEXIST',
      when: 'the frame is plugged',
      source: HARNESS,
      violated: (args, state) => pageAt(guestOf(state, args.guest), args.gfn) !== undefined,
    }),
  ],
  accepts: [
    {
      id: 'guest.plug/new',
      when: 'the frame was unplugged: it is another, zero and good',
      accept: (args, state) => {
        const { nextFrame } = state.mc;
        return { state: withMachine(withPages(state, args, newPage(nextFrame)), { nextFrame: nextFrame + 1 }) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const lacks = (guest: McGuest): boolean => guest.state === 'running' && guest.pages.includes(undefined);
    const label = chooseAside(random, state, lacks);
    if (label === undefined) return undefined;
    const missing = GFNS.filter((each) => pageAt(guestOf(state, label), each) === undefined);
    return { guest: label, gfn: missing[random.below(Math.max(1, missing.length))] ?? '0' };
  },
});
