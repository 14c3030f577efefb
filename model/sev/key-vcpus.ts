/** What commands have in common that a vCPU is given. */
import { pickOr } from '../core/random.ts';
import type { State } from '../core/state.ts';
import type { SevVm } from '../core/state-sev.ts';
import type { Guard } from '../core/transition.ts';
import { VCPUS } from './key-machine.ts';
import type { OnVm } from './key-rows.ts';

export interface OnVcpu extends OnVm {
  readonly vcpu: (typeof VCPUS)[number];
}

/** A vCPU is named by its own descriptor, and so is one of a VM whose descriptor is closed. */
const vmBehind = ({ sev }: State, { vm: label, vcpu: id }: OnVcpu): SevVm | undefined => {
  const found = sev.vms.get(label);
  return found?.vcpus.get(id)?.isOpen === true ? found : undefined;
};

/** The VM of a vCPU that has a descriptor. */
export const behind = (args: OnVcpu, state: State): SevVm => vmBehind(state, args) as SevVm;

/** Every vCPU that has a descriptor. */
export const openVcpus = (state: State): readonly OnVcpu[] =>
  [...state.sev.vms.keys()]
    .flatMap((vm) => VCPUS.map((vcpu) => ({ vm, vcpu })))
    .filter((each) => vmBehind(state, each) !== undefined);

/** Nobody can name a vCPU without a descriptor. Behind this row there is one. */
export const noVcpu = <A extends OnVcpu>(command: string): Guard<A> => ({
  id: `${command}/no-vcpu`,
  unmodelled: 'what is made of a descriptor that is not open is a matter of all ioctls',
  when: 'the vCPU was not created, or its descriptor is closed',
  source: 'fs/file.c: fdget()',
  violated: (args, state) => vmBehind(state, args) === undefined,
});

/** The row with a way to break it: by another vCPU. */
export const byVcpu = <A extends OnVcpu>(row: Guard<A>): Guard<A> => ({
  ...row,
  violate: (args, state, random) =>
    pickOr(
      random,
      openVcpus(state)
        .map((each): A => ({ ...args, ...each }))
        .filter((each) => row.violated(each, state)),
    ),
});

export const deadVcpu = <A extends OnVcpu>(command: string, group?: string): Guard<A> =>
  byVcpu<A>({
    id: `${command}/dead`,
    ...(group !== undefined && { group }),
    errno: 'EIO',
    when: 'the context of the VM was moved to another',
    source: 'virt/kvm/kvm_main.c: kvm_vcpu_ioctl()',
    violated: (args, state) => behind(args, state).isDead,
  });
