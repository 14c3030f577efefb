/** What becomes of memory that fails in a kernel in QEMU: of guest memory, and of memory that is an ordinary slot. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { qemuSuite } from '../../properties/kernel.ts';
import { TASK } from './compile.ts';
import { startQemu, type QemuMachine } from './qemu.ts';
import { Task } from './task.ts';

/** Orders and what is answered, in columns; `*` is any answer. HLT is 5, SHUTDOWN 8. */
type Dialogue = string;

async function expectDialogue(machine: QemuMachine, dialogue: Dialogue): Promise<void> {
  const task = await Task.start(machine);
  const lines = dialogue.trim().split('\n');
  const expected = lines.map((line) => line.trim().split(/ {2,}/) as [string, string]);
  const said: [string, string][] = [];
  for (const [order, answer] of expected) {
    const answered = await task.ask(order);
    said.push([order, answer === '*' ? '*' : answered]);
    if (answered.startsWith('gone')) break;
  }
  expect(said).toEqual(expected);
}

/** What the kernel does to memory, by how it failed. Source: docs/machine-check-on-real-kernels.md. */
const FAILURES: Readonly<Record<string, Dialogue>> = {
  'guest memory: unmapped, EHWPOISON to the guest until it is punched; memory_failure() says EBUSY all the same': `
    gmem 2        0
    guest 0       5
    corrupt 0     -EBUSY
    poisoned 0    1
    frame 0       0
    guest 0       -EHWPOISON
    load 0        0 SIGBUS AR 0
    copy 0        -EFAULT
    corrupt 0     -EHWPOISON
    unpoison 0    -EBUSY
    punch 0       0
    poisoned 0    1
    guest 0       5
    load 0        0 SIGBUS AR 0
    unpoison 0    0
    poisoned 0    0
    unpoison 0    -EBUSY
    guest 1       5
    load 1        2`,
  'guest memory, by the process that has it mapped: told at once, and EBUSY': `
    gmem 1        0
    hwpoison 0    -EBUSY SIGBUS AR 0
    poisoned 0    1
    guest 0       -EHWPOISON`,
  'guest memory is not taken out of use ahead of time': `
    gmem 1        0
    offline 0     -EBUSY
    poisoned 0    0
    load 0        1
    guest 0       5`,
  'anonymous memory: the guest’s access is a signal to the vCPU’s thread, with the address; unpoisoned, it is free again': `
    anon 2        0
    guest 0       5
    corrupt 0     0
    poisoned 0    1
    frame 0       0
    guest 0       -EINTR SIGBUS AR 0
    guest 0       -EINTR SIGBUS AR 0
    load 0        0 SIGBUS AR 0
    store 0       0 SIGBUS AR 0
    copy 0        -EFAULT
    unpoison 0    0
    poisoned 0    0
    load 0        0 SIGBUS AR 0
    hwpoison 1    0 SIGBUS AR 1`,
  'a page of shmem: kept in the file, poisoned, so that it cannot be unpoisoned until it is punched': `
    shared 1      0
    corrupt 0     0
    guest 0       -EINTR SIGBUS AR 0
    load 0        0 SIGBUS AR 0
    unpoison 0    -EBUSY
    punch 0       0
    unpoison 0    0
    load 0        0 SIGBUS AR 0`,
  'who asks for early signals is told that action is optional': `
    anon 1        0
    early         0
    corrupt 0     0 SIGBUS AO 0
    load 0        0 SIGBUS AR 0`,
  'memory that is taken out of use ahead of time moves, with what it holds': `
    anon 1        0
    offline 0     0
    poisoned 0    1
    frame 0       *
    poisoned 0    0
    load 0        1
    guest 0       5`,
};

/** A VMM that does what `vmm.answer` of the profiles of machine checks does, and what comes of other answers. Behind its load the guest is at 3. */
const ANSWERS: Readonly<Record<string, Dialogue>> = {
  'each touch is answered by a machine check, from which the guest comes back to the load, and to another one': `
    anon 2                               0
    setup-mce 0x100010a                  0
    cr4 0x40                             0
    guest 0                              5
    at                                   0x3
    corrupt 0                            0
    guest 0                              -EINTR SIGBUS AR 0
    at                                   0
    set-mce 1 bd80000000000134 7         0
    run                                  5
    at                                   0x101
    wrmsr 0x17a 0                        0
    guest 0                              -EINTR SIGBUS AR 0
    set-mce 1 bd80000000000134 7         0
    run                                  5
    at                                   0x101
    wrmsr 0x17a 0                        0
    guest 1                              5
    at                                   0x3`,
  'the second touch within the handler of the first cannot be answered: a triple fault': `
    anon 1                               0
    setup-mce 0x100010a                  0
    cr4 0x40                             0
    corrupt 0                            0
    guest 0                              -EINTR SIGBUS AR 0
    set-mce 1 bd80000000000134 7         0
    guest 0                              -EINTR SIGBUS AR 0
    set-mce 1 bd80000000000134 7         0
    run                                  8`,
  'no answer, or one that the guest has disabled: the load is met again, and never stepped over': `
    anon 1                               0
    setup-mce 0x100010a                  0
    cr4 0x40                             0
    corrupt 0                            0
    guest 0                              -EINTR SIGBUS AR 0
    run                                  -EINTR SIGBUS AR 0
    wrmsr 0x404 0                        0
    set-mce 1 bd80000000000134 7         0
    run                                  -EINTR SIGBUS AR 0
    at                                   0`,
};

/** KVM_X86_SETUP_MCE, KVM_X86_SET_MCE. Source: arch/x86/kvm/x86.c: kvm_vcpu_ioctl_x86_setup_mce(), kvm_vcpu_ioctl_x86_set_mce(). */
const INJECTIONS: Readonly<Record<string, Dialogue>> = {
  'no banks, too many, and capabilities that are not there are refused': `
    anon 1                               0
    setup-mce 0                          -EINVAL
    setup-mce 33                         -EINVAL
    setup-mce 0x80000000000a             -EINVAL
    setup-mce 0x100010a                  0`,
  'a bank that is not there, and a status that is not valid, are refused': `
    anon 1                               0
    setup-mce 0x100010a                  0
    cr4 0x40                             0
    set-mce 10 bd80000000000134 7        -EINVAL
    set-mce 1 3d80000000000134 7         -EINVAL
    rdmsr 0x405                          0`,
  'an uncorrected error is a machine check; another while MCIP is set, a triple fault': `
    anon 1                               0
    setup-mce 0x100010a                  0
    cr4 0x40                             0
    guest 0                              5
    set-mce 1 bd80000000000134 7         0
    rdmsr 0x17a                          0x7
    rdmsr 0x405                          0xbd80000000000134
    run                                  5
    at                                   0x101
    set-mce 1 bd80000000000134 7         0
    run                                  8`,
  'a triple fault also where CR4.MCE is clear': `
    anon 1                               0
    setup-mce 0x100010a                  0
    guest 0                              5
    set-mce 1 bd80000000000134 7         0
    run                                  8`,
  'nothing where the bank’s control register is not all ones': `
    anon 1                               0
    setup-mce 0x100010a                  0
    cr4 0x40                             0
    wrmsr 0x404 0                        0
    guest 0                              5
    set-mce 1 bd80000000000134 7         0
    rdmsr 0x405                          0
    rdmsr 0x17a                          0
    set-mce 2 bd80000000000134 7         0
    rdmsr 0x409                          0xbd80000000000134
    run                                  5
    at                                   0x101`,
  'nothing where MCG_CTL is not all ones': `
    anon 1                               0
    setup-mce 0x100010a                  0
    cr4 0x40                             0
    wrmsr 0x17b 0                        0
    guest 0                              5
    set-mce 1 bd80000000000134 7         0
    rdmsr 0x405                          0`,
  'what needs no action is noted and raises nothing, in MCIP too; what is corrected does not hide it': `
    anon 1                               0
    setup-mce 0x100010a                  0
    set-mce 1 bc0000000000009f 0         0
    rdmsr 0x405                          0xbc0000000000009f
    set-mce 1 9c0000000000009f 0         0
    rdmsr 0x405                          0xfc0000000000009f
    set-mce 2 9c0000000000009f 0         0
    rdmsr 0x409                          0x9c0000000000009f
    set-mce 2 9c0000000000009f 0         0
    rdmsr 0x409                          0xdc0000000000009f
    guest 0                              5
    at                                   0x3`,
};

for (const origin of ['debian', 'built'] as const)
  qemuSuite(
    origin,
    (kernel) => {
      let machine: QemuMachine;
      beforeAll(async () => {
        machine = await startQemu({ kernel, program: TASK });
      });
      afterAll(async () => machine.kill());

      it.each(Object.entries(FAILURES))('%s', async (_what, dialogue) => expectDialogue(machine, dialogue));

      describe('a VMM that injects machine checks', () => {
        it.each(Object.entries(INJECTIONS))('%s', async (_what, dialogue) => expectDialogue(machine, dialogue));
      });

      describe('a VMM whose guest touches what was taken', () => {
        it.each(Object.entries(ANSWERS))('%s', async (_what, dialogue) => expectDialogue(machine, dialogue));
      });
    },
    ': memory that fails',
  );
