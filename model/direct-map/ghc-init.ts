import { PAGE_SIZE, U64_MAX, WORD_BYTES } from '../core/abi.ts';
import { u64 } from '../core/domain.ts';
import { rememberLast } from '../core/memo.ts';
import { pick, pickOr, type Random } from '../core/random.ts';
import { known, type State } from '../core/state.ts';
import { defineTransition, type Accepted, type ArgsOf, type Guard } from '../core/transition.ts';
import { bytes, chooseWordOffset } from '../gmem/choose.ts';
import { isWordAligned } from '../gmem/content.ts';
import { landmarks } from '../gmem/guest-fault.ts';
import { addressless, ghc, goesOn, losesAddress, noHvaCache, withHvaCache, type NoAddress } from './hva-caches.ts';
import { chooseFrame } from './kvm-access.ts';

const domains = { ghc, gpa: u64(), length: u64({ boundaries: [8n, 4096n, 4104n] }) } as const;

type Init = ArgsOf<typeof domains>;

const hindrance = rememberLast((args: Init, state: State) =>
  addressless(state, known(state.hvaCaches, args.ghc).vm, args),
);

/** A frame from which on a short range has no address. */
function frameWithout(args: Init, state: State, random: Random, wanted: NoAddress): Init | undefined {
  const vm = known(state.vms, known(state.hvaCaches, args.ghc).vm);
  const ranges = landmarks(state, vm)
    .filter((gfn) => gfn >= 0)
    .flatMap((gfn): Init[] => [
      { ...args, gpa: bytes(gfn), length: WORD_BYTES },
      { ...args, gpa: bytes(gfn + 1) - WORD_BYTES, length: 2n * WORD_BYTES },
    ]);
  return pickOr(
    random,
    ranges.filter((range) => hindrance(range, state) === wanted),
  );
}

const accept = ({ ghc: label, gpa, length }: Init, state: State): Accepted => ({
  state: withHvaCache(state, label, { gpa, length, lost: false }),
});

const row = (wanted: NoAddress, errno: 'EINVAL' | 'EFAULT', when: string): Guard<Init> => ({
  id: `ghc.init/${wanted}`,
  group: 'range',
  errno,
  when,
  violated: (args, state) => hindrance(args, state) === wanted,
  violate: (args, state, random) =>
    wanted === 'empty-or-wraps'
      ? {
          ...args,
          ...pick(random, [
            { gpa: PAGE_SIZE, length: 0n },
            { gpa: PAGE_SIZE, length: U64_MAX - 7n },
          ]),
        }
      : frameWithout(args, state, random, wanted),
  leaves: losesAddress,
});

export const ghcInit = defineTransition({
  name: 'ghc.init',
  summary: 'Sets a cache up for a guest range: KVM looks up the host address that it will access there.',
  does: '`kvm_gfn_to_hva_cache_init(kvm, ghc, gpa, length)`',
  source: 'virt/kvm/kvm_main.c: kvm_gfn_to_hva_cache_init(), __kvm_gfn_to_hva_cache_init()',
  only: { feature: 'direct-map' },
  args: domains,
  mayAlso: [],
  weight: 7,
  guards: [
    noHvaCache<Init>('ghc.init'),
    {
      id: 'ghc.init/unaligned',
      unmodelled: 'an access is a number of aligned words of eight bytes',
      when: 'the guest address or the length is not a multiple of eight',
      violated: ({ gpa, length }) => !isWordAligned(gpa) || !isWordAligned(length),
    },
    row('empty-or-wraps', 'EINVAL', 'the range has no bytes and begins with a page, not at 0, or wraps'),
    row(
      'no-slot',
      'EFAULT',
      'a page of the range is in no slot: the cache keeps the range of before, without an address',
    ),
    row('read-only', 'EFAULT', 'a page of the range is in a READONLY slot, whatever the cache is for'),
  ],
  accepts: [
    {
      id: 'ghc.init/page-by-page',
      when: 'the range goes on in another page: no host address is kept, and accesses go page by page',
      applies: goesOn,
      accept,
    },
    {
      id: 'ghc.init/kept',
      when: 'the range is in one page: its host address is kept until the slots change',
      accept,
    },
  ],
  draw: ({ random, state }) => {
    const found = pickOr(random, [...state.hvaCaches]);
    if (found === undefined) return undefined;
    const [label, { vm }] = found;
    const start = bytes(chooseFrame(random, state, vm));
    if (random.below(4) === 0 && start > 0n) return { ghc: label, gpa: start - WORD_BYTES, length: 2n * WORD_BYTES };
    return { ghc: label, gpa: start + chooseWordOffset(random), length: pick(random, [WORD_BYTES, WORD_BYTES, 64n]) };
  },
});
