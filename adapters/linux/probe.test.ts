import { describe, expect, it, test } from '@jest/globals';
import { CAP } from '../../model/core/abi.ts';
import type { CallResults, Step } from './calls.ts';
import { NoGuestMemory, profileOf, question } from './probe.ts';
import { CPUID_HEADER_BYTES, KVM, PAGEMAP, SYS, UTSNAME } from './uapi.ts';

interface Answers {
  readonly device?: bigint;
  readonly release?: string;
  readonly module?: string;
  readonly caps?: Readonly<Record<string, bigint>>;
  /** The result of giving a VM memory past the top of four levels. */
  readonly fifth?: bigint;
  /** Leaf 0x80000008: eax; none where the leaf is missing. */
  readonly physicalBits?: number;
  /** The result of opening pagemap, of cachestat(), and an entry of the former. */
  readonly pagemap?: bigint;
  readonly cachestat?: bigint;
  readonly entry?: bigint;
  /** The results of memfd_secret() and process_vm_readv(). */
  readonly secret?: bigint;
  readonly processVm?: bigint;
}

const ENOENT = -2n;
const EBADF = -9n;
const EACCES = -13n;
const EINVAL = -22n;
const ENOSYS = -38n;
const CAPS = { [`${CAP.GUEST_MEMFD}`]: 1n, [`${CAP.VM_TYPES}`]: 3n, '66': 1024n, '128': 4096n };

/** What a kernel would answer to the question. */
function answers(given: Answers) {
  const { device = 3n, release = '6.18.1', module = '', caps = {}, fifth = EINVAL, physicalBits } = given;
  const { pagemap = 7n, cachestat = EBADF, entry = 0n, secret = 8n, processVm = 0n } = given;
  const { calls, answer } = question();
  const known: Readonly<Record<string, bigint>> = { ...CAPS, ...caps };
  const paths = new Map(calls.segments.map(({ offset, bytes }) => [offset, Buffer.from(bytes).toString('latin1')]));
  const result = (step: Step): bigint => {
    if (step.kind !== 'call') return 0n;
    const [, second, third] = step.args;
    if (step.number === SYS.openat && second?.kind === 'address') {
      const path = paths.get(second.offset) ?? '';
      if (path === '/proc/self/pagemap\0') return pagemap;
      return path.startsWith('/dev/kvm') ? device : path === `/sys/module/${module}\0` ? 9n : ENOENT;
    }
    if (step.number === SYS.cachestat) return cachestat;
    if (step.number === SYS.memfd_secret) return secret;
    if (step.number === SYS.process_vm_readv) return processVm;
    if (step.number !== SYS.ioctl || second?.kind !== 'value') return 0n;
    if (second.value === KVM.CHECK_EXTENSION) return known[third?.kind === 'value' ? `${third.value}` : ''] ?? 0n;
    return second.value === KVM.SET_USER_MEMORY_REGION ? fifth : 0n;
  };
  const outputs = calls.outputs.map(({ length }) => {
    const bytes = Buffer.alloc(length);
    if (length === UTSNAME.fieldBytes) bytes.write(`${release}\0rest`);
    else if (length === PAGEMAP.entryBytes) bytes.writeBigUInt64LE(entry);
    else if (physicalBits !== undefined) {
      bytes.writeUInt32LE(2);
      bytes.writeUInt32LE(1, CPUID_HEADER_BYTES);
      bytes.writeUInt32LE(0x8000_0008, CPUID_HEADER_BYTES + 40);
      bytes.writeUInt32LE(0x3000 + physicalBits, CPUID_HEADER_BYTES + 40 + 12);
    }
    return Uint8Array.from(bytes);
  });
  const results: CallResults = { results: calls.steps.map(result), outputs };
  return answer(results);
}

describe('a kernel', () => {
  it('with shadow paging and little else', () => {
    expect(answers({ module: 'kvm_pvm', physicalBits: 46 })).toEqual({
      release: '6.18.1',
      backEnd: 'kvm_pvm',
      blind: undefined,
      showsFrames: false,
      machine: {
        vmTypes: 3n,
        memoryAttributes: false,
        twoDimensionalPaging: false,
        addressSpaces: 1,
        guestPhysicalBits: 52,
        vcpuPhysicalBits: 46,
        userTop: 0x7fff_ffff_f000n,
        maxVcpuIds: 4096n,
        maxVcpus: 1024n,
        secretMemory: true,
        processVm: true,
        memoryBytes: 64n << 20n,
      },
    });
  });

  it('with all there is', () => {
    const caps = {
      [`${CAP.PRE_FAULT_MEMORY}`]: 1n,
      [`${CAP.MEMORY_ATTRIBUTES}`]: 8n,
      [`${CAP.MULTI_ADDRESS_SPACE}`]: 2n,
    };
    expect(answers({ caps, physicalBits: 46, fifth: 0n, release: '7.3.4-amd64' })).toMatchObject({
      release: '7.3.4-amd64',
      backEnd: 'built in',
      machine: {
        memoryAttributes: true,
        twoDimensionalPaging: true,
        addressSpaces: 2,
        guestPhysicalBits: 46,
        userTop: (1n << 56n) - 0x1000n,
      },
    });
  });

  it('that does not say how wide its frame numbers are', () => {
    const { machine } = answers({ caps: { [`${CAP.PRE_FAULT_MEMORY}`]: 1n } });
    expect(machine.guestPhysicalBits).toBe(52);
  });

  it('that is built without secret memory, or without a way to that of others', () => {
    expect(answers({ secret: ENOSYS }).machine).toMatchObject({ secretMemory: false, processVm: true });
    expect(answers({ processVm: ENOSYS }).machine).toMatchObject({ secretMemory: true, processVm: false });
  });

  it('that shows pages of a process, and frames to some', () => {
    expect(answers({ entry: PAGEMAP.present | 0x1234n })).toMatchObject({ blind: undefined, showsFrames: true });
    expect(answers({ entry: PAGEMAP.present })).toMatchObject({ blind: undefined, showsFrames: false });
  });

  it('that shows nothing of a process, and why', () => {
    expect(answers({ pagemap: EACCES }).blind).toBe('/proc/self/pagemap cannot be opened: EACCES');
    expect(answers({ cachestat: ENOSYS }).blind).toBe('the kernel has no cachestat()');
  });

  it('whose release is no text', () => {
    expect(answers({ release: '6.18\u001b[31m' }).release).toBe('6.18?[31m');
  });

  test.each<[string, Answers, string]>([
    ['without /dev/kvm', { device: ENOENT }, '/dev/kvm cannot be opened: ENOENT'],
    [
      'without guest memory files',
      { caps: { [`${CAP.GUEST_MEMFD}`]: 0n }, release: '6.1.0' },
      'Linux 6.1.0 has no guest memory files: KVM_CAP_GUEST_MEMFD is 0',
    ],
    ['that fails the question', { caps: { [`${CAP.GUEST_MEMFD}`]: EINVAL } }, 'KVM_CAP_GUEST_MEMFD is -22'],
  ])('%s cannot be tested', (_what, given, reason) => {
    expect(() => answers(given)).toThrow(NoGuestMemory);
    expect(() => answers(given)).toThrow(reason);
  });

  it('is asked nothing that stays', () => {
    const { calls } = question();
    const last = calls.steps.at(-1);
    expect(last).toMatchObject({ kind: 'call', number: SYS.close_range });
    const count = (number: number): number =>
      calls.steps.filter((step) => step.kind === 'call' && step.number === number).length;
    expect(count(SYS.munmap)).toBe(count(SYS.mmap));
  });
});

test.each([
  ['6.18.44-custom', 'linux-6.18'],
  ['6.18', 'linux-6.18'],
  ['6.19.3', 'linux-6.18'],
  ['7.2.12+deb13-amd64', 'linux-7.2'],
  ['7.3.0-rc7', 'linux-7.2'],
  ['7.3.3', 'linux-7.2'],
  ['7.3.4', 'linux-7.3'],
  ['7.10.0', 'linux-7.3'],
  ['8.0', 'linux-7.3'],
  ['6.12', 'linux-6.18'],
  ['garbage', 'linux-6.18'],
  ['', 'linux-6.18'],
])('Linux %s is held against %s', (release, profile) => {
  expect(profileOf(release).id).toBe(profile);
});
