import type { State } from '../core/state.ts';
import { defineTransition, type Accepted } from '../core/transition.ts';
import { withoutPrivateMemory } from '../gmem/vm-create.ts';
import {
  ACCESS_MAY_ALSO,
  crossesPage,
  drawAccess,
  kvmAccessArgs,
  kvmAccessRows,
  piecesTo,
  readPieces,
  touchPieces,
  type KvmAccess,
} from './kvm-access.ts';
import { isReinserted } from './reach.ts';

const touch = (args: KvmAccess, state: State): State => touchPieces(state, piecesTo.read(args, state).pieces);

const read = (args: KvmAccess, state: State): Accepted => readPieces(state, piecesTo.read(args, state).pieces);

export const kvmReadGuest = defineTransition({
  name: 'kvm.read-guest',
  readsSecrets: true,
  summary: 'KVM reads guest memory for a vCPU, page by page, as it does to emulate an instruction.',
  does: '`kvm_vcpu_read_guest(vcpu, gpa, buffer, length)`, which goes page by page and stops at the first that fails',
  tells: 'the sum of the words, modulo 2^64',
  source: 'virt/kvm/kvm_main.c: kvm_vcpu_read_guest()',
  only: { feature: 'direct-map' },
  args: kvmAccessArgs,
  mayAlso: ACCESS_MAY_ALSO,
  mayLeavePrefix: true,
  weight: 8,
  guards: kvmAccessRows<KvmAccess>('kvm.read-guest', 'read', touch),
  accepts: [
    {
      id: 'kvm.read-guest/nothing',
      when: 'the length is zero: no page is looked for',
      applies: ({ length }) => length === 0n,
      accept: (_args, state) => ({ state, value: 0n }),
    },
    {
      id: 'kvm.read-guest/two-pages',
      when: 'the range goes on in the next page: one after the other is reached',
      applies: crossesPage,
      accept: read,
    },
    {
      id: 'kvm.read-guest/reinserted',
      when: 'the page is out of the direct map: it is put back for as long as the access takes',
      source: 'RFC v2 "Unmapping guest_memfd from Direct Map", patch 4: __kvm_read_guest_private_page()',
      only: { feature: 'direct-map-reinsertion' },
      unreachable: withoutPrivateMemory,
      applies: (args, state) => piecesTo.read(args, state).pieces.some(({ found }) => isReinserted(state, found)),
      accept: read,
    },
    {
      id: 'kvm.read-guest/read',
      when: 'the page is in the direct map, or the host address of the slot shows it',
      accept: read,
    },
  ],
  draw: ({ random, state }) => drawAccess(random, state),
});
