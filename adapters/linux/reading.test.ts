import { describe, expect, it, test } from '@jest/globals';
import { FULL_MACHINE } from '../../model/core/profile.ts';
import { errnoName } from './errno.ts';
import { lower, observations } from './lower.ts';
import { observe, type Reading } from './reading.ts';
import { EXIT, RUN } from './uapi.ts';

const ERRNO = { EINTR: 4n, EBADF: 9n, ENOMEM: 12n, EFAULT: 14n, EINVAL: 22n, EHWPOISON: 133n } as const;
const DOORBELL = 0x7000n;

/** An output of 4 or 8 bytes. */
function word(value: bigint, bytes = 8): Uint8Array {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(value);
  return Uint8Array.from(buffer.subarray(0, bytes));
}

const ALL_ONES = 0xffff_ffff_ffff_ffffn;

describe('the result of a call', () => {
  const call = (result: bigint, tells: boolean) =>
    observe({ kind: 'call', step: 0, tells }, { results: [result], outputs: [] });

  test.each<[string, bigint, boolean, object]>([
    ['success', 7n, false, { kind: 'ok' }],
    ['a value that is told', 7n, true, { kind: 'ok', value: 7n }],
    ['an error', -ERRNO.EBADF, true, { kind: 'errno', errno: 'EBADF' }],
    ['the last error', -4095n, false, { kind: 'errno', errno: 'errno 4095' }],
    ['no error any more, an address', -4096n, false, { kind: 'ok' }],
    ['an address that is told', -4096n, true, { kind: 'ok', value: ALL_ONES - 4095n }],
  ])('%s', (_what, result, tells, outcome) => {
    expect(call(result, tells)).toEqual(outcome);
  });
});

describe('a memory failure', () => {
  const reading: Reading = { kind: 'failure', step: 0, result: 0, frame: 1 };
  const answered = (result: bigint) => observe(reading, { results: [16n], outputs: [word(result), word(5n)] });

  it('is what its answer says', () => {
    expect(answered(0n)).toEqual({ kind: 'ok' });
    expect(answered(BigInt.asUintN(64, -5n))).toEqual({ kind: 'errno', errno: 'EIO' });
  });

  it('failed, where nobody answers', () => {
    expect(observe(reading, { results: [-ERRNO.EBADF], outputs: [] })).toEqual({ kind: 'errno', errno: 'EBADF' });
  });
});

describe('the result of several calls', () => {
  const reading: Reading = { kind: 'call', step: 1, tells: false, first: 0 };

  it('is the error of the first, or what the last came to', () => {
    const told = [
      [-ERRNO.EINVAL, -ERRNO.EBADF],
      [3n, -ERRNO.ENOMEM],
      [3n, 0x1000n],
    ].map((results) => observe(reading, { results, outputs: [] }));
    expect(told).toEqual([{ kind: 'errno', errno: 'EINVAL' }, { kind: 'errno', errno: 'ENOMEM' }, { kind: 'ok' }]);
  });
});

describe('a field', () => {
  const reading: Reading = { kind: 'field', step: 0, output: 0 };

  it('has 8 bytes or 4, and is of no interest after an error', () => {
    expect(observe(reading, { results: [0n], outputs: [word(ALL_ONES)] })).toEqual({ kind: 'ok', value: ALL_ONES });
    expect(observe(reading, { results: [0n], outputs: [word(0x8180n, 4)] })).toEqual({ kind: 'ok', value: 0x8180n });
    expect(observe(reading, { results: [-ERRNO.EINVAL], outputs: [word(1n)] })).toEqual({
      kind: 'errno',
      errno: 'EINVAL',
    });
  });

  it('may tell what is left of a whole', () => {
    const left: Reading = { ...reading, outOf: 0x3000n };
    expect(observe(left, { results: [0n], outputs: [word(0x1000n)] })).toEqual({ kind: 'ok', value: 0x2000n });
    expect(observe(left, { results: [0n], outputs: [word(0x4000n)] })).toEqual({
      kind: 'ok',
      value: ALL_ONES - 0xfffn,
    });
  });
});

describe('a touch of host memory', () => {
  const touch = (step: bigint, mapped: bigint, loaded?: bigint) =>
    observe(
      { kind: 'host', step: 0, mapped: 1, loaded: loaded === undefined ? undefined : 0 },
      { results: [step, mapped], outputs: loaded === undefined ? [] : [word(loaded)] },
    );

  test.each<[string, object, object]>([
    ['a load', touch(8n, 0n, 5n), { kind: 'ok', value: 5n }],
    ['a store', touch(8n, 0n), { kind: 'ok' }],
    ['where nothing is mapped', touch(-ERRNO.EFAULT, -ERRNO.ENOMEM, 5n), { kind: 'signal', signal: 'SIGSEGV' }],
    ['where no page comes', touch(-ERRNO.EFAULT, 0n), { kind: 'signal', signal: 'SIGBUS' }],
    ['another error', touch(-ERRNO.EINTR, 0n), { kind: 'errno', errno: 'EINTR' }],
  ])('%s', (_what, observed, outcome) => {
    expect(observed).toEqual(outcome);
  });
});

test.each<Reading>([
  { kind: 'field', step: 0, output: 0, outOf: 4096n },
  { kind: 'guest', step: 0, exit: 0, doorbell: DOORBELL, loads: true },
  { kind: 'host', step: 0, mapped: 0, loaded: 0 },
])('a success whose output did not come back, of kind $kind', (reading) => {
  expect(observe(reading, { results: [0n], outputs: [] })).toEqual({ kind: 'ok' });
});

interface Exit {
  readonly reason: bigint;
  readonly at32?: bigint;
  readonly at40?: bigint;
  readonly isWrite?: boolean;
}

/** The head of a struct kvm_run. */
function run({ reason, at32 = 0n, at40 = 0n, isWrite = false }: Exit): Uint8Array {
  const bytes = new Uint8Array(RUN.bytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(RUN.exitReason, Number(reason), true);
  view.setBigUint64(32, at32, true);
  view.setBigUint64(40, at40, true);
  bytes[RUN.mmioIsWrite] = isWrite ? 1 : 0;
  return bytes;
}

describe('an exit', () => {
  const exit = (result: bigint, head: Exit, loads = true) =>
    observe(
      { kind: 'guest', step: 0, exit: 0, doorbell: DOORBELL, loads },
      { results: [result], outputs: [run(head)] },
    );
  const MMIO = { reason: EXIT.MMIO };
  const FAULT = { reason: EXIT.MEMORY_FAULT, at40: 0x5000n };

  test.each<[string, object, object]>([
    [
      'a load that came through',
      exit(0n, { ...MMIO, at32: DOORBELL, at40: 9n, isWrite: true }),
      { kind: 'ok', value: 9n },
    ],
    ['a store that came through', exit(0n, { ...MMIO, at32: DOORBELL, isWrite: true }, false), { kind: 'ok' }],
    ['a read of a device', exit(0n, { ...MMIO, at32: 0x3008n }), { kind: 'mmio', gpa: 0x3008n, write: false }],
    [
      'a write to a device',
      exit(0n, { ...MMIO, at32: 0x3008n, isWrite: true }),
      { kind: 'mmio', gpa: 0x3008n, write: true },
    ],
    [
      'a fault of shared memory',
      exit(-ERRNO.EFAULT, FAULT),
      { kind: 'memory-fault', errno: 'EFAULT', gpa: 0x5000n, private: false },
    ],
    [
      'a fault of private memory, poisoned',
      exit(-ERRNO.EHWPOISON, { ...FAULT, at32: 8n }),
      { kind: 'memory-fault', errno: 'EHWPOISON', gpa: 0x5000n, private: true },
    ],
    ['EFAULT with what an earlier exit left', exit(-ERRNO.EFAULT, MMIO), { kind: 'errno', errno: 'EFAULT' }],
    ['another error, with what an earlier fault left', exit(-ERRNO.EINTR, FAULT), { kind: 'errno', errno: 'EINTR' }],
  ])('%s', (_what, observed, outcome) => {
    expect(observed).toEqual(outcome);
  });

  test.each([
    [EXIT.SHUTDOWN, 'SHUTDOWN'],
    [EXIT.HLT, 'HLT'],
    [EXIT.MEMORY_FAULT, 'MEMORY_FAULT'],
    [EXIT.INTERNAL_ERROR, 'INTERNAL_ERROR: suberror 3, data 0x4 0x0 0x0'],
    [EXIT.FAIL_ENTRY, 'FAIL_ENTRY: hardware reason 0x3'],
    [999n, '999'],
  ])('that cannot be, %s, is a crash that says so', (reason, name) => {
    expect(exit(0n, { reason, at32: 3n, at40: 4n })).toEqual({
      kind: 'crash',
      message: `KVM_RUN returned with exit reason ${name}`,
    });
  });
});

describe('results that end early', () => {
  const lowered = lower(
    [
      { name: 'vm.create', args: { vm: 'vm0', dev: 'kvm', type: 0n } },
      { name: 'host.load', args: { mapping: 'arena', offset: 0n } },
      { name: 'fd.close', args: { fd: 'vm0' } },
    ],
    FULL_MACHINE,
  );
  const told = (count: number) =>
    observations(lowered, { results: Array<bigint>(count).fill(-ERRNO.EBADF), outputs: [] }).length;
  const [vm = 0, load = 0, close = 0] = lowered.firstSteps;

  it('tell of the commands whose last step came', () => {
    expect([0, vm, load - 1, load, close - 1, close, close + 1, lowered.end + 2].map(told)).toEqual([
      0, 0, 0, 1, 1, 2, 3, 3,
    ]);
  });
});

describe('an error number', () => {
  test.each([
    [1, 'EPERM'],
    [11, 'EAGAIN'],
    [95, 'EOPNOTSUPP'],
    [133, 'EHWPOISON'],
    [524, 'ENOTSUPP'],
    [4000, 'errno 4000'],
  ])('%i is %s', (number, name) => {
    expect(errnoName(number)).toBe(name);
  });
});
