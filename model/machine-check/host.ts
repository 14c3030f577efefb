/** The host does what a machine check on it calls for, and the VMM answers what it was told. */
import { choice } from '../core/domain.ts';
import type { McGuest } from '../core/machine-check.ts';
import { pick } from '../core/random.ts';
import type { Label, State } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { injectionOf } from './banks.ts';
import { cpuOf, CPUS, guestOf, pageOf, RUNS, withCpu, withGuest } from './machine.ts';
import { injected, SHUTDOWN } from './mce.ts';
import { frameOf, hidden, hostFailed, hostWorkOf, isKnownToHost, isNews, vmmKilled } from './memory-failure.ts';
import {
  aimed,
  chooseCpu,
  chooseGuest,
  cpuDomains,
  ended,
  guestLabel,
  HARNESS,
  MCE_SOURCE,
  MF_SOURCE,
  noGuest,
} from './rows.ts';
import { exitOf, toVmm } from './touching.ts';

type OnCpu = ArgsOf<typeof cpuDomains>;

const hasHostWork = (args: OnCpu, state: State): boolean => cpuOf(state, args.guest, args.cpu).stage === 'host-work';

const touchedBy = (args: OnCpu, state: State): string => cpuOf(state, args.guest, args.cpu).touch?.gfn ?? '0';

const pageFor = (args: OnCpu, state: State) => pageOf(state, args.guest, touchedBy(args, state));

const isGmem = (args: { readonly guest: Label }, state: State): boolean => guestOf(state, args.guest).memory === 'gmem';

const isNewsToHost = (args: OnCpu, state: State): boolean =>
  hasHostWork(args, state) && isNews(state, args.guest, touchedBy(args, state));

/** The thread has a poison entry of the frame. */
const hasPoisonEntry = (args: OnCpu, state: State): boolean =>
  hasHostWork(args, state) && !isGmem(args, state) && isKnownToHost(state, pageFor(args, state));

/** The host behind memory_failure() of what the vCPU touched. */
const failed = (args: OnCpu, state: State): State =>
  hostFailed(state, { guest: args.guest, gfn: touchedBy(args, state), isRequired: true });

export const hostRecover = defineTransition({
  name: 'host.recover',
  realm: 'mc',
  only: { feature: 'virtual' },
  summary:
    'The thread of a vCPU, before it goes on, does the work that the host’s handler of machine checks has left to it.',
  does: 'task work of the vCPU’s thread: `memory_failure()` with action required, and `set_mce_nospec()` where that succeeds',
  source: `${MCE_SOURCE}: kill_me_maybe(); ${MF_SOURCE}: memory_failure()`,
  args: cpuDomains,
  mayAlso: [],
  essential: true,
  weight: 24,
  guards: [
    noGuest<OnCpu>('host.recover'),
    ended<OnCpu>('host.recover'),
    aimed<OnCpu>(
      { cpu: CPUS },
      {
        id: 'host.recover/nothing-to-do',
        group: 'page',
        errno: 'ENOENT',
        when: 'the thread has no work left',
        source: HARNESS,
        violated: (args, state) => !hasHostWork(args, state),
      },
    ),
    aimed<OnCpu>(
      { cpu: CPUS },
      {
        id: 'host.recover/vmm-killed',
        group: 'page',
        result: 'SIGBUS to the VMM',
        when: 'the frame is one of gmem: it is taken, but what gmem answers counts as a failure, and the thread is killed',
        source: `virt/kvm/guest_memfd.c: kvm_gmem_error_folio(); ${MF_SOURCE}: truncate_error_folio(); ${MCE_SOURCE}: kill_me_now()`,
        violated: (args, state) => isGmem(args, state) && isNewsToHost(args, state),
        outcome: () => toVmm('none'),
        leaves: (args, state) => {
          const { touch } = cpuOf(state, args.guest, args.cpu);
          const others = hostWorkOf(state, args.guest);
          return vmmKilled(state, args.guest, touch === undefined ? others : [touch, ...others]);
        },
      },
    ),
    aimed<OnCpu>(
      { cpu: CPUS },
      {
        id: 'host.recover/vmm-told',
        group: 'page',
        result: 'SIGBUS AR to the VMM',
        when: 'the frame is taken, or was so while the thread had yet to do its work: the thread is told',
        source: `${MF_SOURCE}: hwpoison_user_mappings(), kill_accessing_process()`,
        violated: (args, state) => (!isGmem(args, state) && isNewsToHost(args, state)) || hasPoisonEntry(args, state),
        outcome: () => toVmm('AR'),
        leaves: (args, state) => withCpu(failed(args, state), args.guest, args.cpu, { stage: 'vmm' }),
      },
    ),
    aimed<OnCpu>(
      { cpu: CPUS },
      {
        id: 'host.recover/meets-it-again',
        group: 'page',
        result: 'SIGBUS AR to the VMM, MEMORY_FAULT EHWPOISON',
        when: 'the frame was taken before, and nothing tells the thread, because no page table has it or the frame is free again: the vCPU goes on, and meets what was taken',
        source: `${MF_SOURCE}: kill_accessing_process(), take_page_off_buddy(); arch/x86/kvm/mmu/mmu.c: kvm_mmu_faultin_pfn()`,
        violated: (args, state) =>
          hasHostWork(args, state) && !isNewsToHost(args, state) && !hasPoisonEntry(args, state),
        outcome: (args, state) => exitOf(state, args.guest, touchedBy(args, state)),
        leaves: (args, state) => {
          const frame = frameOf(pageFor(args, state));
          const after = withCpu(failed(args, state), args.guest, args.cpu, { stage: 'vmm' });
          return frame === undefined ? after : hidden(after, frame);
        },
      },
    ),
  ],
  accepts: [
    {
      id: 'host.recover/nothing-taken',
      when: 'the host has nothing against the frame: the vCPU goes on',
      unreachable: () => 'what the thread has work about is bad, and taken by then',
      accept: (args, state) => ({ state: withCpu(state, args.guest, args.cpu, RUNS) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, ({ cpus }) => cpus.some(({ stage }) => stage === 'host-work'));
    if (label === undefined) return undefined;
    return { guest: label, cpu: chooseCpu(random, guestOf(state, label), ({ stage }) => stage === 'host-work') };
  },
});

const BY = [...CPUS, 'main'] as const;
const answerDomains = { guest: guestLabel, by: choice(...BY) } as const;
type Answer = ArgsOf<typeof answerDomains>;

const BANK = 1;

const isMain = ({ by }: Answer): boolean => by === 'main';
const vcpuFor = ({ by }: Answer): string => (by === 'main' ? '0' : by);
const stageFor = (args: Answer, state: State) => cpuOf(state, args.guest, vcpuFor(args)).stage;

const isDropped = (args: Answer, state: State): boolean => isMain(args) && stageFor(args, state) === 'machine-check';

const severityOf = (args: Answer) => (isMain(args) ? 'optional' : 'required');

const injectionFor = (args: Answer, state: State) =>
  injectionOf(cpuOf(state, args.guest, vcpuFor(args)), BANK, severityOf(args));

/** What the main thread was told first is answered. */
const heard = (args: Answer, state: State): State =>
  isMain(args) ? withGuest(state, args.guest, { told: guestOf(state, args.guest).told.slice(1) }) : state;

function answered(args: Answer, state: State): State {
  const { touch } = cpuOf(state, args.guest, vcpuFor(args));
  const gfn = isMain(args) ? guestOf(state, args.guest).told[0] : touch?.gfn;
  return injected(heard(args, state), {
    ...{ guest: args.guest, cpu: vcpuFor(args), bank: BANK, severity: severityOf(args), gfn: gfn ?? '0' },
    ...{ touch: isMain(args) ? undefined : touch, saysUnmapped: true },
  });
}

const answerRow = (row: Guard<Answer>): Guard<Answer> => aimed<Answer>({ by: BY }, row);

export const vmmAnswer = defineTransition({
  name: 'vmm.answer',
  realm: 'mc',
  only: { feature: 'virtual' },
  summary: 'The VMM answers what it was told of poison: with a machine check to the guest, and with nothing else.',
  does: 'the thread of the vCPU, or the main thread, handles the oldest signal or exit of the kind with KVM_X86_SET_MCE in bank 1: action required for a touch, action optional for an early signal',
  source: `arch/x86/kvm/x86.c: kvm_vcpu_ioctl_x86_set_mce(); ${HARNESS}`,
  args: answerDomains,
  mayAlso: [],
  essential: true,
  weight: 80,
  guards: [
    noGuest<Answer>('vmm.answer'),
    ended<Answer>('vmm.answer'),
    answerRow({
      id: 'vmm.answer/busy',
      errno: 'EBUSY',
      when: 'the main thread is to answer, and vCPU 0 is out of the guest',
      source: HARNESS,
      violated: (args, state) => isMain(args) && ['host-work', 'vmm'].includes(stageFor(args, state)),
    }),
    answerRow({
      id: 'vmm.answer/nothing-told',
      group: 'told',
      errno: 'ENOENT',
      when: 'the thread was told nothing that it has not answered',
      source: HARNESS,
      violated: (args, state) =>
        isMain(args) ? guestOf(state, args.guest).told.length === 0 : stageFor(args, state) !== 'vmm',
    }),
    answerRow({
      id: 'vmm.answer/ignored',
      group: 'told',
      result: 'SIGBUS AR to the VMM, MEMORY_FAULT EHWPOISON',
      when: 'the vCPU or the bank has reporting of uncorrected errors disabled: the vCPU goes on as if nothing had happened, and meets the page again',
      violated: (args, state) =>
        !isMain(args) && stageFor(args, state) === 'vmm' && injectionFor(args, state) === 'ignored',
      outcome: (args, state) => exitOf(state, args.guest, cpuOf(state, args.guest, vcpuFor(args)).touch?.gfn ?? '0'),
    }),
    answerRow({
      id: 'vmm.answer/triple-fault',
      result: 'KVM_EXIT_SHUTDOWN',
      when: 'CR4.MCE of the vCPU is clear',
      violated: (args, state) => !isDropped(args, state) && injectionFor(args, state) === 'triple-fault',
      outcome: () => SHUTDOWN,
      leaves: answered,
    }),
  ],
  accepts: [
    {
      id: 'vmm.answer/dropped',
      when: 'the main thread is to answer, and vCPU 0 is in the handler of machine checks: the VMM lets it be',
      source: HARNESS,
      applies: isDropped,
      accept: (args, state) => ({ state: heard(args, state) }),
    },
    {
      id: 'vmm.answer/not-heard',
      when: 'the main thread is to answer, and vCPU 0 or the bank has reporting of uncorrected errors disabled: nothing happens',
      applies: (args, state) => injectionFor(args, state) === 'ignored',
      accept: (args, state) => ({ state: answered(args, state) }),
    },
    {
      id: 'vmm.answer/raised',
      when: 'a machine check is raised, which says that the whole page is bad',
      accept: (args, state) => ({ state: answered(args, state) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, (guest) => threadsOf(guest).length > 0);
    if (label === undefined) return undefined;
    const threads = threadsOf(guestOf(state, label));
    return { guest: label, by: threads.length === 0 ? pick(random, BY) : pick(random, threads) };
  },
});

/** Threads of the VMM that have something to answer. */
const threadsOf = ({ cpus, told }: McGuest): readonly (typeof BY)[number][] =>
  BY.filter((by) => (by === 'main' ? told.length > 0 : cpus[Number(by)]?.stage === 'vmm'));
