import { choice } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import { defineTransition } from '../core/transition.ts';
import { isOutOfDirectMap } from '../gmem/content.ts';

export const faultDirectMap = defineTransition({
  name: 'fault.direct-map',
  summary: 'Makes a coming change of the direct map fail once.',
  does: 'arms a failure: with `split`, the next page that is to leave the direct map for the first time since it is in its file cannot, for want of memory to split the entry that shows it; with `restore`, the next page that is to come back cannot',
  source: 'arch/x86/mm/pat/set_memory.c: split_large_page(), set_direct_map_default_noflush()',
  only: { feature: 'direct-map' },
  requires: 'fault-injection',
  args: { change: choice('split', 'restore') },
  mayAlso: [],
  weight: 3,
  guards: [],
  accepts: [
    {
      id: 'fault.direct-map/armed',
      when: 'always; a failure that was armed before and not met is forgotten',
      accept: ({ change }, state) => ({ state: { ...state, directMapFault: change } }),
    },
  ],
  draw: ({ random, state }) =>
    [...state.inodes.values()].some(isOutOfDirectMap)
      ? { change: pick(random, ['split', 'split', 'restore']) }
      : undefined,
});
