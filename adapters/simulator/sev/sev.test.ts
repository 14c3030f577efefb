import { describe, expect, it } from '@jest/globals';
import type { Facts } from '../../../model/core/facts.ts';
import { printOutcome } from '../../../model/core/outcome.ts';
import { FULL_MACHINE, profileById } from '../../../model/core/profile.ts';
import type { AnyCommand } from '../../../model/core/specification.ts';
import { SevHost } from './commands.ts';
import { KeyedMemory } from './memory.ts';

/** `vm0`, `0x1000` and `arena+0x1000`; single digits are words as well as numbers to the machine. */
function valueOf(text: string): AnyCommand['args'][string] {
  if (text.startsWith('arena')) return { base: 'arena', offset: BigInt(text.split('+')[1] ?? 0) };
  return /^[0-9]/.test(text) ? BigInt(text) : text;
}

/** A machine that takes commands as text, with what they do not say left at zero. */
class Host {
  readonly host = new SevHost({ profile: profileById('gmem-link-rfc'), machine: FULL_MACHINE });

  run(text: string): string {
    const [name = '', ...pairs] = text.split(' ');
    const args = Object.fromEntries(pairs.map((pair) => pair.split('=') as [string, string]));
    const parsed = Object.fromEntries(Object.entries(args).map(([key, value]) => [key, valueOf(value)]));
    return printOutcome(this.host.run({ name, args: { ...ZEROES, ...parsed } }));
  }
  all(...lines: string[]): string[] {
    return lines.map((line) => this.run(line));
  }
  /** A guest of SEV that can run, with one vCPU. */
  guest(vm: string, type = 'default'): this {
    this.run(`sev.vm vm=${vm} type=${type}`);
    this.run(`sev.init vm=${vm} how=${type === 'default' ? 'init' : 'init2'}`);
    this.run(`sev.vcpu vm=${vm} vcpu=0`);
    this.run(`sev.launch-start vm=${vm} device=sev`);
    return this;
  }
  load(vm: string, gfn = 0): string {
    return this.run(`sev.load vm=${vm} vcpu=0 gfn=${gfn}`);
  }
  store(vm: string, value: number, gfn = 0): string {
    return this.run(`sev.store vm=${vm} vcpu=0 gfn=${gfn} value=${value}`);
  }
  /** Every descriptor of the VM. */
  close(vm: string): void {
    this.all(`sev.close vm=${vm} which=vcpu0`, `sev.close vm=${vm} which=vm`);
  }
  get facts(): Facts & Record<string, unknown> {
    return this.host.facts();
  }
  key(key: number): unknown {
    return this.facts.keys?.find((each) => each.key === key);
  }
}

const ZEROES = { flags: 0n, features: 0n, ghcb: 0n, policy: 0x20000n };

describe('memory under keys', () => {
  it('is ciphertext to every key but the one that it was written with', () => {
    const memory = new KeyedMemory();
    expect(memory.load(0, 3, 1)).toBe('ciphertext');
    memory.store(0, 3, 1, 7n);
    expect(memory.load(0, 4, 2)).toBe('ciphertext');
    expect(memory.load(0, 3, 1)).toBe(7n);
  });

  it('shows the next context under an ASID what the last one left in the caches, until both flushes', () => {
    const memory = new KeyedMemory();
    memory.store(0, 3, 1, 7n);
    expect([memory.load(0, 3, 2), memory.holdsOther(3, 2)]).toEqual([7n, true]);
    memory.wbinvd();
    expect([memory.load(0, 3, 2), memory.holdsOther(3, 2)]).toEqual([7n, true]);
    memory.dfFlush();
    expect([memory.load(0, 3, 2), memory.holdsOther(3, 2)]).toEqual(['ciphertext', false]);
  });
});

describe('ASIDs', () => {
  it('come from the range of what the guest is, the lowest first', () => {
    const host = new Host();
    for (const [vm, type] of [
      ['vm0', 'sev'],
      ['vm1', 'sev-es'],
      ['vm2', 'snp'],
      ['vm3', 'sev'],
    ] as const)
      host.all(`sev.vm vm=${vm} type=${type}`, `sev.init vm=${vm} how=init2`);
    expect(host.facts.keys?.map(({ vm }) => vm)).toEqual(['vm1', 'vm2', 'vm0', 'vm3']);
    expect(host.all('sev.vm vm=vm4 type=sev', 'sev.init vm=vm4 how=init2')).toEqual(['ok', 'EBUSY']);
  });

  it('are used again behind a flush, which is made when no other is free, and frees both ranges', () => {
    const host = new Host().guest('vm0').guest('vm1', 'sev-es');
    host.store('vm0', 7);
    host.close('vm0');
    host.close('vm1');
    expect(host.key(3)).toEqual({ key: 3, state: 'reclaim', flushed: false });
    host.guest('vm2');
    expect(host.key(3)).toMatchObject({ state: 'reclaim' });
    host.guest('vm3');
    expect(host.facts.keys?.map(({ state }) => state)).toEqual(['free', 'free', 'assigned', 'assigned']);
    expect(host.key(3)).toEqual({ key: 3, state: 'assigned', vm: 'vm3', flushed: true });
    expect(host.load('vm3')).toBe('ciphertext');
  });

  it('stay where they are while the flush fails, and are leaked where SNP does not let its context go', () => {
    const host = new Host().guest('vm0').guest('vm1');
    host.close('vm0');
    host.run('sev.firmware-fails command=df-flush');
    host.run('sev.vm vm=vm2 type=sev');
    expect(host.all('sev.init vm=vm2 how=init2', 'sev.init vm=vm2 how=init2')).toEqual(['EBUSY', 'ok']);
    host.all('sev.vm vm=vm3 type=snp', 'sev.init vm=vm3 how=init2', 'sev.snp-start vm=vm3 device=sev');
    host.all('sev.firmware-fails command=decommission', 'sev.close vm=vm3 which=vm');
    expect(host.key(1)).toMatchObject({ state: 'leaked', vm: 'vm3' });
  });
});

describe('a launch', () => {
  it('goes through the states of the firmware once', () => {
    const host = new Host().guest('vm0');
    expect(host.run('sev.guest-status vm=vm0')).toBe('ok 0x1');
    expect(host.all('sev.launch-finish vm=vm0', 'sev.launch-measure vm=vm0')).toEqual(['EIO', 'ok']);
    expect(host.all('sev.launch-measure vm=vm0', 'sev.launch-finish vm=vm0')).toEqual(['EIO', 'ok']);
    expect(host.run('sev.guest-status vm=vm0')).toBe('ok 0x3');
  });

  it('asks nobody where the descriptor is not that of /dev/sev: before LAUNCH_START it is 0', () => {
    const host = new Host();
    host.all('sev.vm vm=vm0 type=sev', 'sev.init vm=vm0 how=init2');
    expect(host.run('sev.launch-start vm=vm0 device=other')).toBe('EBADF');
    expect(host.run('sev.launch-measure vm=vm0')).toBe('EBADF');
  });

  it('starts a context that is let go where its ASID has one', () => {
    const host = new Host().guest('vm0');
    expect(host.run('sev.launch-start vm=vm0 device=sev')).toBe('EIO');
    expect(host.run('sev.guest-status vm=vm0')).toBe('ok 0x1');
  });

  it('encrypts in place what the host sees, so that twice is once too often', () => {
    const host = new Host().guest('vm0');
    expect(host.load('vm0')).toBe('ciphertext');
    host.run('sev.launch-update-data vm=vm0 addr=arena len=0x2000');
    expect([host.load('vm0'), host.load('vm0', 1), host.load('vm0', 2)]).toEqual(['ok 0x0', 'ok 0x0', 'ciphertext']);
    host.run('sev.launch-update-data vm=vm0 addr=arena len=0x1000');
    expect(host.load('vm0')).toBe('ciphertext');
    expect(host.facts.pins).toEqual([]);
  });

  it('encrypts the state of each vCPU once', () => {
    const host = new Host().guest('vm0', 'sev-es');
    host.run('sev.vcpu vm=vm0 vcpu=1');
    expect(host.run('sev.launch-update-vmsa vm=vm0')).toBe('ok');
    expect(host.run('sev.launch-update-vmsa vm=vm0')).toBe('EINVAL');
    expect(host.store('vm0', 5)).toBe('ok');
  });

  it('of SNP is refused what is not SNP’s own, and a second context', () => {
    const host = new Host();
    host.all('sev.vm vm=vm0 type=snp', 'sev.init vm=vm0 how=init2');
    expect(host.run('sev.launch-measure vm=vm0')).toBe('EPERM');
    expect(host.run('sev.snp-start vm=vm0 device=sev policy=0')).toBe('EINVAL');
    expect(host.run('sev.snp-start vm=vm0 device=other')).toBe('ENOTTY');
    expect(host.all('sev.snp-start vm=vm0 device=sev', 'sev.snp-start vm=vm0')).toEqual(['ok', 'EINVAL']);
  });

  it.each([
    ['of SEV-ES', 'sev-es', 'sev.launch-start vm=vm0 device=sev', 'sev.launch-update-vmsa vm=vm0'],
    ['of SNP', 'snp', 'sev.snp-start vm=vm0 device=sev', 'sev.snp-finish vm=vm0'],
  ])('%s has registers that can be set until they are encrypted', (_what, type, start, encrypt) => {
    const host = new Host();
    host.all(`sev.vm vm=vm0 type=${type}`, 'sev.init vm=vm0 how=init2', 'sev.vcpu vm=vm0 vcpu=0', start);
    expect(host.all('sev.set-regs vm=vm0 vcpu=0 value=7', encrypt)).toEqual(['ok', 'ok']);
    expect(host.facts.saveAreas).toEqual([{ vm: 'vm0', vcpu: 0, stale: false }]);
    expect(host.all('sev.set-regs vm=vm0 vcpu=0 value=8', encrypt)).toEqual(['EINVAL', 'EINVAL']);
    expect(host.facts.saveAreas).toEqual([]);
  });

  it('of SNP is launched once, with vCPUs or without', () => {
    const host = new Host();
    host.all('sev.vm vm=vm0 type=snp', 'sev.init vm=vm0 how=init2');
    expect(host.run('sev.snp-finish vm=vm0')).toBe('EINVAL');
    host.run('sev.snp-start vm=vm0 device=sev');
    expect(host.all('sev.snp-finish vm=vm0 flags=1', 'sev.snp-finish vm=vm0')).toEqual(['EINVAL', 'ok']);
    expect(host.all('sev.snp-finish vm=vm0', 'sev.vcpu vm=vm0 vcpu=0', 'sev.snp-finish vm=vm0')).toEqual([
      ...['EIO', 'ok', 'EIO'],
    ]);
    expect(host.run('sev.set-regs vm=vm0 vcpu=0 value=7')).toBe('ok');
  });
});

describe('regions', () => {
  it('pin their pages, and are found by address and size', () => {
    const host = new Host().guest('vm0');
    host.all('sev.region-add vm=vm0 addr=arena+0x800 size=0x1000', 'sev.region-add vm=vm0 addr=arena size=1');
    expect(host.facts.regions).toEqual([
      { vm: 'vm0', start: 0, end: 2 },
      { vm: 'vm0', start: 0, end: 1 },
    ]);
    expect(host.facts.pins).toEqual([
      { page: 0, count: 2 },
      { page: 1, count: 1 },
    ]);
    expect(host.run('sev.region-drop vm=vm0 addr=arena size=2')).toBe('EINVAL');
    expect(host.run('sev.region-drop vm=vm0 addr=arena size=1')).toBe('ok');
    host.close('vm0');
    expect(host.facts.pins).toEqual([]);
  });

  it.each([
    ['size=0', 'EINVAL'],
    ['size=0xffffffffffffffff', 'EINVAL'],
    ['size=0x1000000000000000', 'EINVAL'],
    ['size=0x41000', 'ENOMEM'],
  ])('with %s are refused: %s', (size, answer) => {
    const host = new Host().guest('vm0');
    expect(host.run(`sev.region-add vm=vm0 addr=arena ${size}`)).toBe(answer);
    expect(host.facts.pins).toEqual([]);
  });

  it('are not the affair of a mirror, whatever order the call looks in', () => {
    const host = new Host().guest('vm0');
    host.all('sev.vm vm=vm1 type=default', 'sev.copy vm=vm1 from=vm0');
    expect(host.run('sev.region-add vm=vm1 addr=arena size=1')).toBe('EINVAL');
    expect(host.run('sev.region-drop vm=vm1 addr=arena size=1')).toBe('EINVAL');
  });
});

describe('a mirror', () => {
  const mirrored = (): Host => {
    const host = new Host().guest('vm0');
    host.all('sev.vm vm=vm1 type=sev', 'sev.copy vm=vm1 from=vm0', 'sev.vcpu vm=vm1 vcpu=0');
    return host;
  };

  it('has the key of its owner, and is asked for nothing else', () => {
    const host = mirrored();
    host.store('vm0', 7);
    expect(host.load('vm1')).toBe('ok 0x7');
    expect(host.run('sev.guest-status vm=vm1')).toBe('ok 0x1');
    expect(host.run('sev.launch-measure vm=vm1')).toBe('EINVAL');
    expect(host.all('sev.vm vm=vm2 type=sev', 'sev.copy vm=vm2 from=vm1')).toEqual(['ok', 'EINVAL']);
  });

  it('keeps its owner, and the ASID is given back by that one', () => {
    const host = mirrored();
    host.store('vm0', 7);
    host.close('vm0');
    expect(host.facts.vms).toHaveLength(2);
    expect(host.load('vm1')).toBe('ok 0x7');
    expect(host.facts.keyUsers).toContainEqual({ vm: 'vm1', key: 3, owner: 'vm0' });
    host.close('vm1');
    expect(host.facts.vms).toEqual([]);
    expect(host.key(3)).toMatchObject({ state: 'reclaim' });
  });

  it('goes with a context that moves, and its reference with it', () => {
    const host = mirrored();
    host.all('sev.vm vm=vm2 type=default', 'sev.move vm=vm2 from=vm0');
    expect(host.facts.keyUsers).toContainEqual({ vm: 'vm1', key: 3, owner: 'vm2' });
    host.close('vm0');
    host.run('sev.close vm=vm2 which=vm');
    expect(host.facts.vms).toEqual([{ vm: 'vm1' }, { vm: 'vm2' }]);
    host.close('vm1');
    expect(host.facts.vms).toEqual([]);
  });

  it('can move itself, and is still a mirror', () => {
    const host = mirrored();
    host.all('sev.vm vm=vm2 type=sev', 'sev.move vm=vm2 from=vm1');
    expect(host.facts.keyUsers).toContainEqual({ vm: 'vm2', key: 3, owner: 'vm0' });
    host.close('vm1');
    host.close('vm0');
    expect(host.facts.vms).toEqual([{ vm: 'vm0' }, { vm: 'vm2' }]);
  });
});

describe('a context that moves', () => {
  it('takes memory, regions and pins with it, and leaves a VM that is dead', () => {
    const host = new Host().guest('vm0');
    host.run('sev.region-add vm=vm0 addr=arena size=1');
    host.store('vm0', 7);
    host.all('sev.vm vm=vm1 type=default', 'sev.vcpu vm=vm1 vcpu=0');
    expect(host.run('sev.move vm=vm1 from=vm0')).toBe('ok');
    expect([host.load('vm1'), host.load('vm0')]).toEqual(['ok 0x7', 'EIO']);
    expect(host.run('sev.guest-status vm=vm0')).toBe('EIO');
    expect(host.facts.regions).toEqual([{ vm: 'vm1', start: 0, end: 1 }]);
  });

  it('leaves the descriptor of /dev/sev behind, and a type that waits for KVM_SEV_INIT2 waits on', () => {
    const host = new Host().guest('vm0', 'sev');
    host.all('sev.vm vm=vm1 type=sev', 'sev.vcpu vm=vm1 vcpu=0', 'sev.move vm=vm1 from=vm0');
    expect(host.run('sev.guest-status vm=vm1')).toBe('EBADF');
    expect(host.run('sev.init vm=vm1 how=init2')).toBe('EINVAL');
    expect(host.load('vm1')).toBe('EINVAL');
  });

  it('of SEV-ES wants as many vCPUs, all encrypted', () => {
    const host = new Host();
    host.all('sev.vm vm=vm0 type=default', 'sev.init vm=vm0 how=es-init', 'sev.vcpu vm=vm0 vcpu=0');
    host.all('sev.launch-start vm=vm0 device=sev', 'sev.vm vm=vm1 type=default');
    expect(host.run('sev.move vm=vm1 from=vm0')).toBe('EINVAL');
    host.run('sev.vcpu vm=vm1 vcpu=0');
    expect(host.run('sev.move vm=vm1 from=vm0')).toBe('EINVAL');
    host.run('sev.launch-update-vmsa vm=vm0');
    expect(host.run('sev.move vm=vm1 from=vm0')).toBe('ok');
    expect(host.store('vm1', 1)).toBe('ok');
  });

  it.each([
    ['none', 'EBADF'],
    ['null', 'EBADF'],
    ['vm1', 'EINVAL'],
  ])('does not come from %s: %s', (from, answer) => {
    const host = new Host();
    host.run('sev.vm vm=vm1 type=default');
    expect(host.run(`sev.move vm=vm1 from=${from}`)).toBe(answer);
    expect(host.run(`sev.copy vm=vm1 from=${from}`)).toBe(answer);
  });
});

describe('memory in files', () => {
  it('is that of the inode, for every VM that has a file on it and the key', () => {
    const host = new Host().guest('vm0');
    host.all('sev.vm vm=vm1 type=default', 'sev.copy vm=vm1 from=vm0', 'sev.vcpu vm=vm1 vcpu=0');
    host.all('sev.file file=file0 vm=vm0', 'sev.link file=file1 vm=vm1 from=file0');
    expect(host.run('sev.bind vm=vm1 file=file0 gfn=4')).toBe('EINVAL');
    expect(host.all('sev.bind vm=vm0 file=file0 gfn=4', 'sev.bind vm=vm1 file=file1 gfn=5')).toEqual(['ok', 'ok']);
    expect([host.store('vm0', 7, 4), host.load('vm1', 5)]).toEqual(['ok', 'ok 0x7']);
    expect(host.load('vm0', 5)).toBe('MMIO read gpa=0x5000');
    host.run('sev.close-file file=file0');
    expect(host.load('vm0', 4)).toBe('MEMORY_FAULT EFAULT gpa=0x4000 shared');
    expect(host.load('vm1', 5)).toBe('ok 0x7');
  });

  it('is not there for SNP, and keeps the struct kvm of its file', () => {
    const host = new Host().guest('vm0');
    host.run('sev.vm vm=vm1 type=snp');
    expect(host.run('sev.file file=file0 vm=vm1')).toBe('EINVAL');
    host.run('sev.file file=file1 vm=vm0');
    host.close('vm0');
    expect(host.key(3)).toMatchObject({ state: 'assigned', vm: 'vm0' });
    host.run('sev.close-file file=file1');
    expect(host.key(3)).toMatchObject({ state: 'reclaim' });
  });
});

describe('memory that is taken from a guest', () => {
  it('has no line in caches that is still to be written back, whoever wrote it', () => {
    const host = new Host().guest('vm0');
    host.store('vm0', 7);
    host.store('vm0', 7, 1);
    expect(host.host.memory.dirtyFrames).toHaveLength(2);
    host.run('sev.discard page=0');
    expect([host.host.memory.dirtyFrames, host.facts.lines]).toEqual([[], []]);
    expect([host.load('vm0'), host.load('vm0', 1)]).toEqual(['ciphertext', 'ok 0x7']);
  });

  it('is written back when its guest ends, and before it moves', () => {
    const host = new Host().guest('vm0');
    host.store('vm0', 7);
    host.all('sev.vm vm=vm1 type=default', 'sev.move vm=vm1 from=vm0');
    expect(host.host.memory.dirtyFrames).toEqual([]);
    host.guest('vm2').store('vm2', 7);
    host.close('vm2');
    expect(host.host.memory.dirtyFrames).toEqual([]);
  });

  it('is not written back where guest_memfd frees it, which asks nobody', () => {
    const host = new Host().guest('vm0');
    host.all('sev.file file=file0 vm=vm0', 'sev.bind vm=vm0 file=file0 gfn=4');
    host.store('vm0', 7, 4);
    host.run('sev.close-file file=file0');
    expect(host.facts.lines).toEqual([expect.objectContaining({ line: 0, state: 'keyed' })]);
  });
});

it('lets others run between two regions of a guest that ends', () => {
  const host = new Host().guest('vm0');
  host.all('sev.region-add vm=vm0 addr=arena size=1', 'sev.region-add vm=vm0 addr=arena size=2');
  host.close('vm0');
  expect(host.facts.stretches).toEqual([{ vm: 'vm0', regions: 1 }]);
});

it('uses the memory of a struct kvm again at once', () => {
  const host = new Host();
  host.run('sev.vm vm=vm0 type=default');
  const [first] = host.host.vmList;
  host.all('sev.close vm=vm0 which=vm', 'sev.vm vm=vm1 type=default');
  const [second] = host.host.vmList;
  expect(second?.address).toBe(first?.address);
  expect(second?.label).toBe('vm1');
});
