import { u64 } from '../core/domain.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { chooseValue } from './choose.ts';
import { drawHostAccess, hostAccessArgs, hostAccessRows, loadWord, storeWord, type Endings } from './mapping-access.ts';

const loadArgs = hostAccessArgs;
const storeArgs = { ...loadArgs, value: u64() } as const;

const signal = (name: 'SIGBUS' | 'SIGSEGV'): Endings<never>['fault'] => ({
  result: name,
  outcome: () => ({ kind: 'signal', signal: name }),
});
const SIGNALS = { unmapped: signal('SIGSEGV'), fault: signal('SIGBUS') } as const;

const SOURCE = 'virt/kvm/guest_memfd.c: kvm_gmem_fault_user_mapping()';

export const hostLoad = defineTransition({
  name: 'host.load',
  summary: 'The host process reads a word through a mapping.',
  does: '`*(u64 *)(mapping + offset)`',
  tells: 'the word',
  source: SOURCE,
  args: loadArgs,
  mayAlso: [],
  weight: 7,
  guards: hostAccessRows<ArgsOf<typeof loadArgs>>('host.load', SIGNALS),
  accepts: [
    {
      id: 'host.load/loaded',
      when: 'the page may be touched: it reads what was last stored, and zero if it is new',
      accept: loadWord,
    },
  ],
  draw: ({ random, state }) => drawHostAccess(random, state),
});

export const hostStore = defineTransition({
  name: 'host.store',
  summary: 'The host process writes a word through a mapping.',
  does: '`*(u64 *)(mapping + offset) = value`',
  source: SOURCE,
  args: storeArgs,
  mayAlso: [],
  weight: 7,
  guards: hostAccessRows<ArgsOf<typeof storeArgs>>('host.store', SIGNALS),
  accepts: [
    {
      id: 'host.store/stored',
      when: 'the page may be touched',
      accept: storeWord,
    },
  ],
  draw: ({ random, state }) => {
    const access = drawHostAccess(random, state);
    return access && { ...access, value: chooseValue(random) };
  },
});
