/** Machine checks come from the VMM, and the guest's kernel says which it takes. */
import { choice } from '../core/domain.ts';
import type { McCpu, McSeverity, McTouch } from '../core/machine-check.ts';
import type { Outcome } from '../core/outcome.ts';
import { pick } from '../core/random.ts';
import type { Label, State } from '../core/state.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { injectionOf, reported } from './banks.ts';
import { cpuOf, CPUS, endedBy, guestOf, RUNS, withCpu, withEnded, withGuest } from './machine.ts';
import {
  aimed,
  chooseCpu,
  chooseFrame,
  chooseAside,
  cpu,
  ended,
  gfn,
  guestLabel,
  HARNESS,
  isAfflicted,
  noGuest,
  unplugged,
} from './rows.ts';

const SET_MCE = 'arch/x86/kvm/x86.c: kvm_vcpu_ioctl_x86_set_mce()';

export const SHUTDOWN: Outcome = { kind: 'status', status: 'KVM_EXIT_SHUTDOWN' };

/** What a machine check that nobody's touch explains interrupts: user mode, or the kernel where work is left or nobody runs. */
const interrupted = (state: State, label: Label, name: string, at: string): McTouch => ({
  gfn: at,
  context:
    cpuOf(state, label, name).work === undefined && guestOf(state, label).alive[Number(name)] === true
      ? 'user'
      : 'kernel',
});

interface Injected {
  readonly guest: Label;
  readonly cpu: string;
  readonly bank: number;
  readonly severity: McSeverity;
  readonly gfn: string;
  /** What the vCPU is out of the guest for. */
  readonly touch?: McTouch | undefined;
  readonly saysUnmapped: boolean;
}

const guestWith = (state: State, { guest, cpu: at }: Injected, change: McCpu): State =>
  withGuest(withCpu(state, guest, at, change), guest, { isDisturbed: true });

/** The vCPU with the machine check; where its handler ran already, it goes on from there. */
export function injected(state: State, what: Injected): State {
  const { guest, cpu: at, bank, severity, touch, saysUnmapped } = what;
  const before = cpuOf(state, guest, at);
  const back: McCpu = before.stage === 'machine-check' ? before : { ...before, ...RUNS };
  const injection = injectionOf(before, bank, severity);
  if (injection === 'ignored') return guestWith(state, what, back);
  if (injection === 'triple-fault')
    return withEnded(state, guest, 'triple-fault', endedBy(guest, 'triple-fault', touch));
  const after = reported(back, bank, { severity, gfn: what.gfn, saysUnmapped });
  if (injection === 'logged') return guestWith(state, what, after);
  const interrupts = touch ?? before.touch ?? interrupted(state, guest, at, what.gfn);
  return guestWith(state, what, { ...after, stage: 'machine-check', touch: interrupts });
}

const setDomains = {
  guest: guestLabel,
  cpu,
  bank: choice('0', '1', '2'),
  severity: choice('corrected', 'no-action', 'optional', 'required'),
  valid: choice('yes', 'no'),
  gfn,
} as const;
type SetArgs = ArgsOf<typeof setDomains>;

const injectionFor = (args: SetArgs, state: State) =>
  injectionOf(cpuOf(state, args.guest, args.cpu), Number(args.bank), args.severity);

const setting = (args: SetArgs): Injected => ({
  ...{ guest: args.guest, cpu: args.cpu, bank: Number(args.bank) },
  ...{ severity: args.severity, gfn: args.gfn, saysUnmapped: false },
});

export const mceSet = defineTransition({
  name: 'mce.set',
  realm: 'mc',
  only: { feature: 'virtual' },
  summary:
    'A VMM puts a report into a machine-check bank of a vCPU, and, where it is of the kind, raises a machine check.',
  does: 'KVM_X86_SET_MCE with `bank`, a status of that `severity`, VAL as `valid` says, and the address of `gfn`',
  source: SET_MCE,
  args: setDomains,
  mayAlso: [],
  weight: 8,
  guards: [
    noGuest<SetArgs>('mce.set'),
    ended<SetArgs>('mce.set'),
    unplugged<SetArgs>('mce.set'),
    aimed<SetArgs>(
      { cpu: CPUS },
      {
        id: 'mce.set/busy',
        errno: 'EBUSY',
        when: 'the thread of the vCPU is at the host’s work, or has been told of a touch that it has not answered',
        source: HARNESS,
        violated: (args, state) => {
          const { stage } = cpuOf(state, args.guest, args.cpu);
          return stage === 'host-work' || stage === 'vmm';
        },
      },
    ),
    {
      id: 'mce.set/no-bank',
      errno: 'EINVAL',
      when: 'the vCPU has no such bank',
      violated: ({ bank }) => bank === '2',
      violate: (args) => ({ ...args, bank: '2' }),
    },
    {
      id: 'mce.set/not-valid',
      errno: 'EINVAL',
      when: 'the status is not valid',
      violated: ({ valid }) => valid === 'no',
      violate: (args) => ({ ...args, valid: 'no' }),
    },
    aimed<SetArgs>(
      { cpu: CPUS, bank: ['0', '1'], severity: ['optional', 'required'] },
      {
        id: 'mce.set/triple-fault',
        result: 'KVM_EXIT_SHUTDOWN',
        when: 'a machine check is to be raised while one is in progress (MCIP), or while CR4.MCE is clear',
        violated: (args, state) => injectionFor(args, state) === 'triple-fault',
        outcome: () => SHUTDOWN,
        leaves: (args, state) => injected(state, setting(args)),
      },
    ),
  ],
  accepts: [
    {
      id: 'mce.set/ignored',
      when: 'a machine check is to be raised, and the vCPU or the bank has reporting of uncorrected errors disabled: nothing happens',
      applies: (args, state) => injectionFor(args, state) === 'ignored',
      accept: (args, state) => ({ state: injected(state, setting(args)) }),
    },
    {
      id: 'mce.set/logged',
      when: 'the report is of a corrected error, or of one that needs no action: it is in the bank, for those who poll',
      source: `${SET_MCE}; arch/x86/kvm/x86.c: kvm_vcpu_x86_set_ucna()`,
      applies: (args, state) => injectionFor(args, state) === 'logged',
      accept: (args, state) => ({ state: injected(state, setting(args)) }),
    },
    {
      id: 'mce.set/raised',
      when: 'the report is in the bank, and a machine check is raised',
      accept: (args, state) => ({ state: injected(state, setting(args)) }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state);
    if (label === undefined) return undefined;
    const guest = guestOf(state, label);
    return {
      guest: label,
      cpu: chooseCpu(random, guest, ({ stage }) => stage === 'runs' || stage === 'machine-check'),
      bank: pick(random, ['0', '1', '1']),
      severity: pick(random, ['corrected', 'no-action', 'optional', 'required', 'required']),
      valid: 'yes',
      gfn: chooseFrame(random, guest, isAfflicted),
    };
  },
});

const controlDomains = {
  guest: guestLabel,
  cpu,
  register: choice('mcg-ctl', 'bank0-ctl', 'bank1-ctl', 'cr4-mce'),
  value: choice('on', 'off'),
} as const;

type ControlArgs = ArgsOf<typeof controlDomains>;

function controlled(before: McCpu, register: string, isOn: boolean): Partial<McCpu> {
  if (register === 'mcg-ctl') return { isGloballyEnabled: isOn };
  if (register === 'cr4-mce') return { takesExceptions: isOn };
  const bank = register === 'bank0-ctl' ? 0 : 1;
  return { isBankEnabled: before.isBankEnabled.map((each, at) => (at === bank ? isOn : each)) };
}

export const mceControl = defineTransition({
  name: 'mce.control',
  realm: 'mc',
  only: { feature: 'virtual' },
  summary: 'The kernel of a guest says which machine checks a CPU takes.',
  does: 'the guest writes all ones or zero to IA32_MCG_CTL or IA32_MCi_CTL, or sets or clears CR4.MCE',
  source: 'arch/x86/kvm/x86.c: set_msr_mce(), kvm_set_cr4()',
  args: controlDomains,
  mayAlso: [],
  weight: 2,
  guards: [noGuest<ControlArgs>('mce.control'), ended<ControlArgs>('mce.control')],
  accepts: [
    {
      id: 'mce.control/written',
      when: 'always',
      accept: ({ guest, cpu: at, register, value }, state) => {
        const change = controlled(cpuOf(state, guest, at), register, value === 'on');
        return { state: withGuest(withCpu(state, guest, at, change), guest, { isDisturbed: true }) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseAside(random, state);
    if (label === undefined) return undefined;
    return {
      guest: label,
      cpu: pick(random, CPUS),
      register: pick(random, ['mcg-ctl', 'bank0-ctl', 'bank1-ctl', 'cr4-mce']),
      value: pick(random, ['on', 'off']),
    };
  },
});
