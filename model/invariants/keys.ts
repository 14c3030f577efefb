import type { Condition } from '../core/profile.ts';
import type { Label } from '../core/state.ts';
import { clause, hex, type Invariant } from './invariant.ts';

const keysKnown = clause(['keys', 'tdPages'], ({ after: { keys, tdPages } }) => {
  if (keys.length === 0) return undefined;
  for (const { vm, gfn, frame, key } of tdPages) {
    const owner: Label | undefined = keys.find((each) => each.key === key && each.state === 'assigned')?.vm;
    if (owner !== vm)
      return `frame ${hex(frame)}, gfn ${hex(gfn)} of ${vm}, is under key ${key}, which is ${owner ?? 'nobody'}’s`;
  }
  return undefined;
});

const keysExclusive = clause(['keys'], ({ after: { keys } }) => {
  for (const { key, state, vm, flushed } of keys) {
    if (state === 'free' && !flushed) return `key ${key} is free, and a cache holds lines under it`;
    const other = keys.find(
      (each) => each.key !== key && state === 'assigned' && each.state === 'assigned' && each.vm === vm,
    );
    if (other !== undefined) return `keys ${key} and ${other.key} are both ${vm ?? 'nobody'}’s`;
  }
  return undefined;
});

/** What leaked is never used again. */
const leakedForEver = clause(['keys'], ({ before, after }) => {
  const leaked = before?.keys.filter(({ state }) => state === 'leaked') ?? [];
  const back = leaked.find(({ key }) => after.keys.some((each) => each.key === key && each.state === 'assigned'));
  return back && `key ${back.key} was leaked by ${back.vm ?? 'nobody'}, and is in use again`;
});

/** Behind SEV's allocation of an ASID nothing is left of who had it. */
const assignedIsFlushed = clause(['keys', 'keyUsers'], ({ after: { keys } }) => {
  const stale = keys.find(({ state, flushed }) => state === 'assigned' && !flushed);
  return stale && `key ${stale.key} is ${stale.vm ?? 'nobody'}’s, and a cache holds lines that another wrote under it`;
});

const usersKnown = clause(['keys', 'keyUsers'], ({ after: { keys, keyUsers } }) => {
  for (const { vm, key, owner } of keyUsers) {
    const whose = keys.find((each) => each.key === key && each.state === 'assigned')?.vm;
    if (owner === undefined && whose !== vm) return `${vm} uses key ${key}, which is ${whose ?? 'nobody'}’s`;
  }
  return undefined;
});

const ownersUse = clause(['keys', 'keyUsers'], ({ after: { keys, keyUsers } }) => {
  const idle = keys.find(
    ({ key, state, vm }) =>
      state === 'assigned' && !keyUsers.some((each) => each.key === key && each.vm === vm && each.owner === undefined),
  );
  return idle && `key ${idle.key} is ${idle.vm ?? 'nobody'}’s, who does not use it`;
});

const ownerIsThere = clause(['keyUsers', 'vms'], ({ after: { keyUsers, vms } }) => {
  const left = keyUsers.find(({ owner }) => owner !== undefined && !vms.some(({ vm }) => vm === owner));
  return left && `${left.vm} uses key ${left.key} as a mirror of ${left.owner ?? ''}, which is gone`;
});

const ownerHasKey = clause(['keyUsers'], ({ after: { keyUsers } }) => {
  for (const { vm, key, owner } of keyUsers) {
    const having = owner === undefined ? undefined : keyUsers.find((each) => each.vm === owner);
    if (owner !== undefined && (having?.key !== key || having.owner !== undefined))
      return `${vm} uses key ${key} as a mirror of ${owner}, which does not own it`;
  }
  return undefined;
});

const pinned = clause(['regions', 'pins'], ({ after: { regions, pins } }) => {
  // Between two of these pages nothing changes: regions may be as large as a stranger says.
  const edges = new Set([
    ...regions.flatMap(({ start, end }) => [start, end]),
    ...pins.flatMap(({ page }) => [page, page + 1]),
  ]);
  for (const page of edges) {
    const count = regions.filter(({ start, end }) => start <= page && page < end).length;
    const have = pins.find((each) => each.page === page)?.count ?? 0;
    if (count !== have) return `page ${hex(page)} of the arena is in ${count} regions, and pinned ${have} times`;
  }
  return undefined;
});

const others = clause(['stretches'], ({ after: { stretches } }) => {
  const long = stretches.find(({ regions }) => regions > 1);
  return long && `${long.regions} regions of ${long.vm} were given back before anybody else could run`;
});

const stable = clause(['saveAreas'], ({ after: { saveAreas } }) => {
  const torn = saveAreas.find(({ stale }) => stale);
  return torn && `vCPU ${torn.vcpu} of ${torn.vm} has other registers than those that were encrypted`;
});

const SEV: Condition = { realm: 'sev' };
const SEED = 'Christopherson and Tng on "KVM: Add KVM_CREATE_GUEST_MEMFD ioctl()", September 2023';

export const keyInvariants: readonly Invariant[] = [
  {
    id: 'key/one-owner',
    sentence:
      'A private key in use belongs to one virtual machine, and every page under it to that; it is used again only after caches were flushed and every page under it was taken back, and never where that failed.',
    source: 'arch/x86/kvm/vmx/tdx.c: tdx_mmu_release_hkid(); arch/x86/kvm/svm/sev.c: sev_flush_asids()',
    only: [{ realm: 'td' }, SEV],
    clauses: [keysKnown, keysExclusive, leakedForEver, assignedIsFlushed, usersKnown, ownersUse],
  },
  {
    id: 'key/helper-within-owner',
    sentence: 'A helper (mirror) VM never uses a key after the owner’s context is gone.',
    source: SEED,
    only: SEV,
    clauses: [ownerIsThere, ownerHasKey],
  },
  {
    id: 'key/pins-balanced',
    sentence: 'Memory of the process is pinned as often as registered regions cover it.',
    source: 'arch/x86/kvm/svm/sev.c: sev_mem_enc_register_region(), sev_migrate_from(), sev_vm_destroy()',
    only: SEV,
    clauses: [pinned],
  },
  {
    id: 'key/end-yields',
    sentence: 'A guest ends region by region, with others running in between, however many it has.',
    source: 'arch/x86/kvm/svm/sev.c: sev_vm_destroy(); CVE-2020-36311',
    only: SEV,
    clauses: [others],
  },
  {
    id: 'key/save-area-stable',
    sentence: 'The registers of a vCPU do not change while they are encrypted.',
    source: 'arch/x86/kvm/svm/sev.c: sev_es_sync_vmsa(), snp_launch_update_vmsa(); CVE-2026-31591',
    only: SEV,
    clauses: [stable],
  },
];
