/** The handler of machine checks of a guest's kernel, or of a machine's without a VMM. */
import type { McCpu, McWork } from '../core/machine-check.ts';
import type { Outcome } from '../core/outcome.ts';
import type { Condition } from '../core/profile.ts';
import type { State } from '../core/state.ts';
import { defineTransition, type ArgsOf, type Guard } from '../core/transition.ts';
import { scanned, type Panic, type Scan } from './banks.ts';
import { cpuOf, CPUS, endedBy, guestOf, isVirtual, RUNS, withCpu, withEnded, withGuest, workOf } from './machine.ts';
import { aimed, chooseGuest, cpuDomains, ended, HARNESS, MCE_SOURCE, noGuest } from './rows.ts';

type OnCpu = ArgsOf<typeof cpuDomains>;

const contextOf = ({ touch }: McCpu) => touch?.context ?? 'kernel';

const scanOf = (args: OnCpu, state: State): Scan => {
  const cpu = cpuOf(state, args.guest, args.cpu);
  return scanned(cpu, contextOf(cpu));
};

/** Ten is likely overkill, says the handler. */
const MOST_CHECKS = 10;

/** Whether the report is one for the task's work. What the kernel was doing with a fixup is done with, and no more. */
const isForTask = (args: OnCpu, state: State): boolean =>
  scanOf(args, state).required !== undefined && contextOf(cpuOf(state, args.guest, args.cpu)) !== 'copy';

const isTooMany = (args: OnCpu, state: State): boolean =>
  isForTask(args, state) && (workOf(state, args.guest, args.cpu)?.checks ?? 0) >= MOST_CHECKS;

const isElsewhere = (args: OnCpu, state: State): boolean => {
  const work = workOf(state, args.guest, args.cpu);
  return isForTask(args, state) && work !== undefined && work.gfn !== scanOf(args, state).required?.gfn;
};

const isInHandler = (args: OnCpu, state: State): boolean =>
  cpuOf(state, args.guest, args.cpu).stage === 'machine-check';

const panicRow = (
  id: string,
  when: string,
  source: string,
  violated: (args: OnCpu, state: State) => boolean,
  only?: Condition,
): Guard<OnCpu> =>
  aimed<OnCpu>(
    { cpu: CPUS },
    {
      id: `kernel.handle/${id}`,
      ...(only && { only }),
      result: 'panic',
      when,
      source,
      violated: (args, state) => isInHandler(args, state) && violated(args, state),
      outcome: (_args, state): Outcome => ({ kind: 'machine-check', ends: isVirtual(state) ? 'guest' : 'machine' }),
      leaves: (args, state) =>
        withEnded(
          state,
          args.guest,
          'panicked',
          endedBy(args.guest, 'panic', cpuOf(state, args.guest, args.cpu).touch),
        ),
    },
  );

const SEVERITY = 'arch/x86/kernel/cpu/mce/severity.c: mce_severity_intel()';
const panics =
  (wanted: Panic) =>
  (args: OnCpu, state: State): boolean =>
    scanOf(args, state).panic === wanted;

/** The CPU behind the handler: what it has read is cleared, and reports without need of action are the worker's. */
function handled(args: OnCpu, state: State, work: McWork | undefined): State {
  const { banks, optional } = scanOf(args, state);
  const { worker } = guestOf(state, args.guest);
  const reports = optional.map(({ gfn, saysUnmapped }): McWork => ({
    ...{ gfn, saysUnmapped, step: 'recover', kills: 'never', checks: 0 },
  }));
  const cpu = withCpu(state, args.guest, args.cpu, { ...RUNS, banks, inProgress: false, hasErrorIp: false, work });
  return withGuest(cpu, args.guest, { worker: [...worker, ...reports] });
}

export const kernelHandle = defineTransition({
  name: 'kernel.handle',
  realm: 'mc',
  summary: 'The kernel handles a machine check: it panics, or gives its task work to do, or has it logged.',
  does: 'the CPU runs the handler of the exception',
  source: `${MCE_SOURCE}: do_machine_check()`,
  args: cpuDomains,
  mayAlso: [],
  essential: true,
  weight: 80,
  guards: [
    noGuest<OnCpu>('kernel.handle'),
    ended<OnCpu>('kernel.handle'),
    aimed<OnCpu>(
      { cpu: CPUS },
      {
        id: 'kernel.handle/nothing-raised',
        errno: 'ENOENT',
        when: 'no machine check was raised on the CPU',
        source: HARNESS,
        violated: (args, state) => !isInHandler(args, state),
      },
    ),
    panicRow(
      'not-in-progress',
      'MCIP is not set, because a VMM has written another status since',
      SEVERITY,
      panics('not-in-progress'),
      { feature: 'virtual' },
    ),
    panicRow(
      'lost-events',
      'action is required, and reports before this one were lost',
      SEVERITY,
      panics('lost-events'),
      { feature: 'virtual' },
    ),
    panicRow('in-kernel', 'the kernel itself consumed the poison, without a fixup', SEVERITY, panics('in-kernel')),
    panicRow(
      'too-many',
      'it is the eleventh before the task could do its work',
      `${MCE_SOURCE}: queue_task_work()`,
      isTooMany,
    ),
    panicRow(
      'another-page',
      'the task has work to do already, about another page',
      `${MCE_SOURCE}: queue_task_work()`,
      (args, state) => !isTooMany(args, state) && isElsewhere(args, state),
    ),
  ],
  accepts: [
    {
      id: 'kernel.handle/logged',
      when: 'nothing is required: what is optional is left to the worker',
      source: `${MCE_SOURCE}: __mc_scan_banks(), uc_decode_notifier()`,
      only: { feature: 'virtual' },
      applies: (args, state) => scanOf(args, state).required === undefined,
      accept: (args, state) => ({ state: handled(args, state, workOf(state, args.guest, args.cpu)) }),
    },
    {
      id: 'kernel.handle/again',
      when: 'the system call of the task has met the page again before it returned: its work counts it',
      applies: (args, state) => isForTask(args, state) && workOf(state, args.guest, args.cpu) !== undefined,
      accept: (args, state) => {
        const work = workOf(state, args.guest, args.cpu);
        return { state: handled(args, state, work && { ...work, checks: work.checks + 1 }) };
      },
    },
    {
      id: 'kernel.handle/work',
      when: 'action is required, and the task gets work to do before it goes on in user mode',
      applies: isForTask,
      accept: (args, state) => {
        const { required } = scanOf(args, state);
        const kills = contextOf(cpuOf(state, args.guest, args.cpu)) === 'user' ? 'maybe' : 'never';
        const { gfn, saysUnmapped } = required ?? { gfn: '0', saysUnmapped: false };
        return { state: handled(args, state, { gfn, saysUnmapped, kills, step: 'recover', checks: 1 }) };
      },
    },
    {
      id: 'kernel.handle/fixed-up',
      when: 'the kernel was copying with a fixup: the copy ends, and nothing more is done',
      accept: (args, state) => ({ state: handled(args, state, workOf(state, args.guest, args.cpu)) }),
    },
  ],
  draw: (context) => {
    const label = chooseGuest(context.random, context.state, ({ cpus }) =>
      cpus.some(({ stage }) => stage === 'machine-check'),
    );
    if (label === undefined) return undefined;
    const { cpus } = guestOf(context.state, label);
    return { guest: label, cpu: cpus[1]?.stage === 'machine-check' && cpus[0]?.stage !== 'machine-check' ? '1' : '0' };
  },
});
