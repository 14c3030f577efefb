/** Caches: what is in one hides what memory holds, until it is written back. */
import { choice } from '../core/domain.ts';
import type { McGuest, McLine } from '../core/machine-check.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import type { Label, State } from '../core/state.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { GFNS, guestOf, lineOf, LINES, pageAt, pageOf, withLine, withPage } from './machine.ts';
import { foundByHardware } from './memory-failure.ts';
import {
  aimed,
  chooseAside,
  chooseFrame,
  ended,
  gfn,
  guestLabel,
  HARNESS,
  isAfflicted,
  line,
  MCE_SOURCE,
  noFrame,
  noGuest,
  unplugged,
} from './rows.ts';

interface Place {
  readonly guest: Label;
  readonly gfn: string;
  readonly line: string;
}

const lineIn = ({ guest, gfn: at, line: which }: Place, state: State): McLine | undefined =>
  lineOf(pageOf(state, guest, at), which);

const withLineAt = (state: State, { guest, gfn: at, line: which }: Place, change: Partial<McLine>): State => {
  const { backing } = pageOf(state, guest, at);
  return withPage(state, guest, at, { backing: backing && withLine(backing, which, change) });
};

/**
 * No cache has the line any more. Poison is written back as poison, and reported as what nobody has consumed; what is good
 * does not mend a line of memory that is bad.
 */
export function writtenBack(state: State, place: Place): State {
  const cached = lineIn(place, state)?.cached;
  if (cached === undefined) return state;
  if (cached !== 'poisoned') return withLineAt(state, place, { cached: undefined });
  return foundByHardware(withLineAt(state, place, { cached: undefined, isBad: true }), place.guest, place.gfn);
}

const WAYS = ['fill', 'spoil', 'evict'] as const;
const domains = { guest: guestLabel, gfn, line, how: choice(...WAYS) } as const;
type Caching = ArgsOf<typeof domains>;

const is = (args: Caching, state: State, how: Caching['how'], cached: McLine['cached']): boolean =>
  args.how === how && lineIn(args, state)?.cached === cached;

/** Whether the 1:1 map lets the line be cached. Speculation does not leave the guest. */
const isCacheable = (args: Caching, state: State): boolean => {
  const { oneToOne, isTaken } = pageOf(state, args.guest, args.gfn);
  return oneToOne === 'present' && !isTaken;
};

export const hwCache = defineTransition({
  name: 'hw.cache',
  realm: 'mc',
  summary: 'A line comes into a cache by speculation, goes bad there, or is evicted. Otherwise no cache keeps a line.',
  does: '`fill`: the kernel loads the line by speculation, through its 1:1 map, and a cache keeps it; `spoil`: what a store has left there goes bad; `evict`: it leaves the cache, and what was stored is written back',
  source: 'Intel SDM, volume 3, 13.1 and 17.9.3.1; arch/x86/mm/pat/set_memory.c: set_mce_nospec()',
  args: domains,
  mayAlso: [],
  weight: 10,
  guards: [
    noGuest<Caching>('hw.cache'),
    ended<Caching>('hw.cache'),
    unplugged<Caching>('hw.cache'),
    noFrame<Caching>('hw.cache'),
    aimed<Caching>(
      { gfn: GFNS, line: LINES, how: ['spoil'] },
      {
        id: 'hw.cache/not-modified',
        errno: 'ENOENT',
        when: 'no cache has the line, or not with something that was stored: what is in memory as well is fetched again',
        source: HARNESS,
        violated: (args, state) => args.how === 'spoil' && !is(args, state, 'spoil', 'dirty'),
      },
    ),
  ],
  accepts: [
    {
      id: 'hw.cache/not-fetched',
      when: 'the 1:1 map has the page uncacheable or not at all, or the host has taken it: nothing is fetched',
      source: 'arch/x86/mm/pat/set_memory.c: set_mce_nospec()',
      applies: (args, state) => args.how === 'fill' && !isCacheable(args, state),
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'hw.cache/filled',
      when: 'a cache has the line, as it is in memory, and answers loads, also when memory has gone bad',
      applies: (args, state) => is(args, state, 'fill', undefined) && lineIn(args, state)?.isBad === false,
      accept: (args, state) => ({ state: withLineAt(state, args, { cached: 'clean' }) }),
    },
    {
      id: 'hw.cache/fetched-to-no-avail',
      when: 'a cache has the line already; or memory has it bad, and nobody consumes what was fetched',
      applies: ({ how }) => how === 'fill',
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'hw.cache/spoiled',
      when: 'what was stored is lost, and nobody knows',
      applies: ({ how }) => how === 'spoil',
      accept: (args, state) => ({
        state: withPage(
          withLineAt(state, args, { cached: 'poisoned' }),
          args.guest,
          args.gfn,
          {},
          { isDisturbed: true },
        ),
      }),
    },
    {
      id: 'hw.cache/poison-written-back',
      when: 'poison is written back as poison, and reported to the kernel on the hardware as one for which action is optional',
      source: `arch/x86/kernel/cpu/mce/severity.c: severities[]; ${MCE_SOURCE}: uc_decode_notifier()`,
      applies: (args, state) => is(args, state, 'evict', 'poisoned'),
      accept: (args, state) => ({ state: writtenBack(state, args) }),
    },
    {
      id: 'hw.cache/evicted',
      when: 'no cache has the line any more; what was stored is in memory, where the line is good',
      accept: (args, state) => ({ state: writtenBack(state, args) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state);
    if (label === undefined) return undefined;
    return { guest: label, ...choosePlace(random, guestOf(state, label)) };
  },
});

/** What there is to be done about a line that a cache has, or, now and then, another line. */
function choosePlace(random: Random, guest: McGuest): Omit<Caching, 'guest'> {
  const cachedAt = (place: { readonly gfn: string; readonly line: string }): McLine['cached'] => {
    const page = pageAt(guest, place.gfn);
    return page && lineOf(page, place.line)?.cached;
  };
  const found = pickOr(
    random,
    GFNS.flatMap((at) => LINES.map((which) => ({ gfn: at, line: which }))).filter((place) =>
      ['dirty', 'poisoned'].includes(cachedAt(place) ?? ''),
    ),
  );
  if (found !== undefined && random.below(2) === 0)
    return { ...found, how: cachedAt(found) === 'dirty' && random.below(2) > 0 ? 'spoil' : 'evict' };
  const wanted = random.below(2) === 0 ? isAfflicted : () => true;
  return {
    ...{ gfn: chooseFrame(random, guest, wanted), line: pick(random, LINES) },
    how: random.below(8) === 0 ? 'evict' : 'fill',
  };
}
