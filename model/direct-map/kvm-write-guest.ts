import { u64 } from '../core/domain.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type Accepted, type ArgsOf } from '../core/transition.ts';
import { withoutPrivateMemory } from '../gmem/vm-create.ts';
import { chooseGuestWord } from './guest-tables.ts';
import {
  ACCESS_MAY_ALSO,
  crossesPage,
  drawAccess,
  kvmAccessArgs,
  kvmAccessRows,
  piecesTo,
  writePieces,
} from './kvm-access.ts';
import { isReinserted } from './reach.ts';

const domains = { ...kvmAccessArgs, value: u64() } as const;

type KvmWrite = ArgsOf<typeof domains>;

const written = (args: KvmWrite, state: State): State =>
  writePieces(state, piecesTo.write(args, state).pieces, args.value);

const write = (args: KvmWrite, state: State): Accepted => ({ state: written(args, state) });

export const kvmWriteGuest = defineTransition({
  name: 'kvm.write-guest',
  summary: 'KVM writes guest memory for a vCPU, page by page: every word gets the value.',
  does: '`kvm_vcpu_write_guest(vcpu, gpa, buffer, length)` with `value` in every word of the buffer; what was written before an error stays',
  source: 'virt/kvm/kvm_main.c: kvm_vcpu_write_guest()',
  only: { feature: 'direct-map' },
  args: domains,
  mayAlso: ACCESS_MAY_ALSO,
  mayLeavePrefix: true,
  weight: 9,
  guards: kvmAccessRows<KvmWrite>('kvm.write-guest', 'write', written),
  accepts: [
    {
      id: 'kvm.write-guest/nothing',
      when: 'the length is zero: no page is looked for',
      applies: ({ length }) => length === 0n,
      accept: (_args, state) => ({ state }),
    },
    {
      id: 'kvm.write-guest/two-pages',
      when: 'the range goes on in the next page: one after the other is reached',
      applies: crossesPage,
      accept: write,
    },
    {
      id: 'kvm.write-guest/reinserted',
      when: 'the page is out of the direct map: it is put back for as long as the access takes',
      source: 'RFC v2 "Unmapping guest_memfd from Direct Map", patch 4: __kvm_write_guest_private_page()',
      only: { feature: 'direct-map-reinsertion' },
      unreachable: withoutPrivateMemory,
      applies: (args, state) => piecesTo.write(args, state).pieces.some(({ found }) => isReinserted(state, found)),
      accept: write,
    },
    {
      id: 'kvm.write-guest/written',
      when: 'the page is in the direct map, or the host address of the slot shows it',
      accept: write,
    },
  ],
  draw: ({ random, state }) => {
    const access = drawAccess(random, state);
    return access && { ...access, value: chooseGuestWord(random, state, access) };
  },
});
