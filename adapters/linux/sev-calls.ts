/**
 * What a kernel can be asked of SEV where no processor has it: guests that call their host, and contexts of other VMs that
 * are to be copied or moved, which there are none of. Whole programs of the profiles `hypercall-linux-7.3` and
 * `sev-linux-7.3` as system calls, and the way back.
 */
import type { Observation } from '../../model/core/outcome.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import { OTHER, type Label } from '../../model/core/state.ts';
import { TargetFailure, type Observed, type Target } from '../adapter.ts';
import type { AgentConnection } from './agent.ts';
import type { CallProgram, CallResults, Operand } from './calls.ts';
import { errnoName } from './errno.ts';
import {
  DOORBELL,
  EXCEPTION_DOORBELL,
  HypercallGuest,
  type CallRegisters,
  type Instruction,
  type Mode,
  type Place,
  type RunSteps,
} from './hypercall-guest.ts';
import { address, Lowering, value } from './lowering.ts';
import { AT_FDCWD, ENABLE_CAP, ENABLED_CAP, EXIT, O_CLOEXEC, O_RDWR, RUN } from './uapi.ts';

type Read = (results: CallResults) => Observation;

interface Context {
  readonly lowering: Lowering;
  readonly kvm: Operand;
  readonly other: Operand;
  /** Bytes are copied through it. */
  readonly file: Operand;
  /** The instruction that makes this processor leave a guest. */
  readonly native: Instruction;
  readonly guests: Map<Label, HypercallGuest>;
}

/* Readings. */

const returned =
  (step: number): Read =>
  ({ results }) => {
    const result = results[step] ?? 0n;
    return result < 0n ? { kind: 'errno', errno: errnoName(Number(-result)) } : { kind: 'ok' };
  };

/** Source: include/uapi/linux/kvm_para.h. */
const ERRORS = { EPERM: 1n, EINVAL: 22n, ENOSYS: 1000n } as const;
const VECTORS: ReadonlyMap<number, string> = new Map([
  [6, '#UD'],
  [13, '#GP'],
  [14, '#PF'],
]);
const MAP_GPA_RANGE = 12n;
const ENCRYPTED = 0x10n;

const viewOf = ({ outputs }: CallResults, output: number): DataView => {
  const bytes = outputs[output] ?? new Uint8Array(RUN.bytes);
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
};

const width = ({ bits }: Pick<Mode, 'bits'>, number: bigint): bigint => BigInt.asUintN(Number(bits), number);

/** What the guest finds in RAX: an error of KVM's, or a value. */
function answered(rax: bigint, mode: Pick<Mode, 'bits'>): Observation {
  const [errno] = Object.entries(ERRORS).find(([, number]) => width(mode, -number) === rax) ?? [];
  return errno === undefined ? { kind: 'ok', value: rax } : { kind: 'errno', errno: errno as keyof typeof ERRORS };
}

const crash = (message: string): Observation => ({ kind: 'crash', message });

/** What came of KVM_RUN, until the guest rang, was given an exception, or asked the VMM. */
const ran =
  ({ step, exit, regs }: RunSteps, rung: (rax: bigint) => Observation): Read =>
  (results) => {
    const outcome = returned(step)(results);
    if (outcome.kind === 'errno') return outcome;
    const view = viewOf(results, exit);
    const reason = BigInt(view.getUint32(RUN.exitReason, true));
    const gpa = view.getBigUint64(RUN.mmioPhysAddr, true);
    if (reason === EXIT.HYPERCALL) return called(view);
    if (reason === EXIT.MMIO && gpa === DOORBELL) return rung(viewOf(results, regs).getBigUint64(0, true));
    if (reason === EXIT.MMIO && gpa === EXCEPTION_DOORBELL) {
      const vector = view.getUint32(RUN.mmioData, true);
      return { kind: 'status', status: VECTORS.get(vector) ?? `exception ${vector}` };
    }
    const suberror = reason === EXIT.INTERNAL_ERROR ? `, suberror ${view.getUint32(RUN.suberror, true)}` : '';
    return crash(`KVM_RUN returned with exit reason ${reason}${suberror}`);
  };

function called(view: DataView): Observation {
  const [gpa, pages, attributes] = [0, 8, 16].map((at) => view.getBigUint64(RUN.hypercallArgs + at, true)) as Three;
  const nr = view.getBigUint64(RUN.hypercallNr, true);
  if (nr !== MAP_GPA_RANGE) return crash(`KVM_EXIT_HYPERCALL for hypercall ${nr}`);
  return { kind: 'hypercall', gpa, pages, private: (attributes & ENCRYPTED) !== 0n, attributes };
}

type Three = [bigint, bigint, bigint];

/* Commands. */

function enable({ lowering }: Context, vm: Operand, cap: bigint, argument: Operand): Read {
  const asked = lowering.struct(ENABLE_CAP, { cap });
  lowering.put(asked, ENABLE_CAP, 'args', argument);
  return returned(lowering.ioctl(vm, 'ENABLE_CAP', address(asked)));
}

const sourceOf = ({ lowering, other }: Context, from: Label): Operand =>
  from === OTHER ? other : lowering.descriptor(from);

interface OnGuest {
  readonly guest: Label;
}
interface OnVm {
  readonly vm: Label;
}
type Lower = (context: Context, args: never) => Read;

function guestOf({ guests }: Context, { guest }: OnGuest): HypercallGuest {
  const found = guests.get(guest);
  if (found === undefined) throw new RangeError(`there is no guest ${guest}`);
  return found;
}

/** All VMs are of the default type: no command that is here asks for the type. */
const COMMANDS: Readonly<Record<string, Lower>> = {
  'hypercall.guest': (context, { guest, text }: OnGuest & { text: string }) => {
    const made = new HypercallGuest(context.lowering, context.kvm, context.file, text === 'writable');
    context.guests.set(guest, made);
    return returned(made.opening);
  },
  'hypercall.exits': (context, args: OnGuest & { mask: bigint }) =>
    enable(context, guestOf(context, args).vm, ENABLED_CAP.EXIT_HYPERCALL, value(args.mask)),
  'hypercall.quirk': (context, args: OnGuest & { mask: bigint }) =>
    enable(context, guestOf(context, args).vm, ENABLED_CAP.DISABLE_QUIRKS2, value(args.mask)),
  'hypercall.alternatives': (context, args: OnGuest) => {
    guestOf(context, args).patch('ordinary', context.native);
    return () => ({ kind: 'ok' });
  },
  'hypercall.call': (context, args: OnGuest & Mode & CallRegisters & { by: Place }) =>
    ran(guestOf(context, args).call(args.by, args, args), (rax) => answered(rax, args)),
  'hypercall.return': (context, args: OnGuest & { sets: 'yes' | 'no'; ret: bigint }) =>
    ran(guestOf(context, args).answer(args.sets === 'yes' ? args.ret : undefined), (rax) => ({
      kind: 'ok',
      value: rax,
    })),
  'hypercall.close': (context, args: OnGuest) => {
    const step = guestOf(context, args).close();
    context.guests.delete(args.guest);
    return returned(step);
  },
  'sev.vm': ({ lowering, kvm }, { vm }: OnVm) => {
    const step = lowering.ioctl(kvm, 'CREATE_VM', value(0n));
    lowering.opened(vm, step);
    return returned(step);
  },
  'sev.vcpu': ({ lowering }, { vm, vcpu }: OnVm & { vcpu: string }) => {
    const step = lowering.ioctl(lowering.descriptor(vm), 'CREATE_VCPU', value(BigInt(vcpu)));
    if (!lowering.isOpen(`${vm}/vcpu${vcpu}`)) lowering.opened(`${vm}/vcpu${vcpu}`, step);
    return returned(step);
  },
  'sev.copy': (context, { vm, from }: OnVm & { from: Label }) =>
    enable(context, context.lowering.descriptor(vm), ENABLED_CAP.VM_COPY_ENC_CONTEXT_FROM, sourceOf(context, from)),
  'sev.move': (context, { vm, from }: OnVm & { from: Label }) =>
    enable(context, context.lowering.descriptor(vm), ENABLED_CAP.VM_MOVE_ENC_CONTEXT_FROM, sourceOf(context, from)),
  'sev.close': ({ lowering }, { vm, which }: OnVm & { which: string }) => {
    const label = which === 'vm' ? vm : `${vm}/${which}`;
    const step = lowering.call('close', lowering.descriptor(label));
    lowering.closed(label);
    return returned(step);
  },
};

interface Lowered {
  readonly calls: CallProgram;
  readonly observe: (results: CallResults) => readonly Observed[];
}

function lower(program: readonly AnyCommand[], native: Instruction): Lowered {
  const lowering = new Lowering();
  const open = (path: string): Operand =>
    lowering.result(
      lowering.call('openat', value(BigInt.asUintN(64, AT_FDCWD)), lowering.text(path), value(O_RDWR | O_CLOEXEC)),
    );
  const context: Context = {
    lowering,
    kvm: open('/dev/kvm'),
    other: open('/dev/null'),
    file: lowering.result(lowering.call('memfd_create', lowering.text('scratch'), value(0n))),
    native,
    guests: new Map(),
  };
  const reads = program.map(({ name, args }) => {
    const command = COMMANDS[name];
    if (command === undefined) throw new TargetFailure(`a kernel without SEV cannot be asked for ${name}`);
    return command(context, args as never);
  });
  for (const guest of context.guests.values()) guest.close();
  lowering.cleanUp(context.kvm);
  return {
    calls: lowering.program(),
    observe: (results) => reads.map((read) => ({ outcome: read(results) })),
  };
}

/** How long a program may take. */
const PROGRAM_MS = 15_000;

/** A kernel to which such programs are given. Nothing of it is seen but what it answers. */
export function sevCallsTarget(
  agent: AgentConnection,
  native: Instruction,
  { name, machine }: Pick<Target, 'name' | 'machine'>,
): Target {
  return {
    name,
    machine,
    capabilities: new Set(),
    commands: new Set(Object.keys(COMMANDS)),
    execute: async (program) => {
      const { calls, observe } = lower(program, native);
      return observe(await agent.run(calls, { timeoutMs: PROGRAM_MS }));
    },
  };
}
