/** What the environment decides: who holds the module's locks, whether a core can go on, what leaves a cache. */
import { choice } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { evicted, lineOf, withLine } from './lines.ts';
import { LINES, withMachine } from './machine.ts';
import { chooseFrame, chooseTd, frameAt, gfn, line, noTd, tdLabel } from './rows.ts';

export const seamBusy = defineTransition({
  name: 'seam.busy',
  realm: 'td',
  summary: 'Somebody else holds what the module needs, for the next calls that change pages or end a TD.',
  does: 'the next `times` calls of TDH.MEM.RANGE.BLOCK, TDH.MEM.TRACK, TDH.MEM.PAGE.REMOVE, TDH.MR.FINALIZE and TDH.MNG.VPFLUSHDONE answer TDX_OPERAND_BUSY; it sets the number anew',
  source: 'arch/x86/kvm/vmx/tdx.c: tdh_do_no_vcpus(), tdx_operand_busy()',
  only: { feature: 'tdx' },
  args: { times: choice('1', '2') },
  mayAlso: [],
  weight: 2,
  guards: [],
  accepts: [
    {
      id: 'seam.busy/busy',
      when: 'always',
      accept: ({ times }, state) => ({ state: withMachine(state, { busy: Number(times) }) }),
    },
  ],
  draw: ({ random, state }) => (state.td.tds.size === 0 ? undefined : { times: pick(random, ['1', '1', '2']) }),
});

export const coreStop = defineTransition({
  name: 'core.stop',
  realm: 'td',
  summary: 'The core that consumes poison next cannot go on.',
  does: 'where poison is consumed next the core determines that execution cannot continue, and the machine shuts down',
  source: 'RFC v1 "KVM: unmap guest memory using poisoned pages", cover letter; TDX module EAS, chapter 14',
  only: { feature: 'tdx' },
  args: {},
  mayAlso: [],
  weight: 1,
  guards: [],
  accepts: [
    {
      id: 'core.stop/armed',
      when: 'always',
      accept: (_args, state) => ({ state: withMachine(state, { coreStops: true }) }),
    },
  ],
  draw: ({ state }) => (state.td.tds.size === 0 ? undefined : {}),
});

const evictDomains = { td: tdLabel, gfn, line, last: choice('private', 'shared') } as const;

export const cacheEvict = defineTransition({
  name: 'cache.evict',
  realm: 'td',
  summary: 'A line leaves the caches, under both keys: of two that are dirty, memory keeps the one that goes last.',
  does: 'the copies of line `line` of frame `gfn` leave all caches, and dirty ones are written to memory, the one under the `last` key last',
  source: 'AMD64 manual, volume 2, 15.34.8: software has to keep copies under different keys apart',
  only: { feature: 'c-bit' },
  args: evictDomains,
  mayAlso: [],
  weight: 8,
  guards: [noTd<ArgsOf<typeof evictDomains>>('cache.evict')],
  accepts: [
    {
      id: 'cache.evict/evicted',
      when: 'always',
      accept: (args, state) => {
        const spot = { td: args.td, gfn: args.gfn, line: args.line, which: 'page' } as const;
        const found = lineOf(frameAt(args, state), 'page', args.line);
        return { state: withLine(state, spot, evicted(found, args.last === 'private' ? 'guest' : 'host')) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseTd(random, state);
    if (label === undefined) return undefined;
    const isCached = chooseFrame(random, state, label, ({ page }) =>
      page.lines.some(({ guestCopy, hostCopy }) => guestCopy !== undefined || hostCopy !== undefined),
    );
    return { td: label, gfn: isCached, line: pick(random, LINES), last: pick(random, ['private', 'shared']) };
  },
});
