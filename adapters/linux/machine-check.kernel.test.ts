/** Machine checks that QEMU delivers to a kernel while a task of it uses the page, or nobody does: who dies, and what comes back. */
import { afterEach, expect, it } from '@jest/globals';
import { setTimeout } from 'node:timers/promises';
import { qemuSuite } from '../../properties/kernel.ts';
import { TASK } from './compile.ts';
import type { Kernel } from './kernels.ts';
import { startQemu, type QemuMachine, type QemuOptions } from './qemu.ts';
import { Task } from './task.ts';

/** IA32_MCi_STATUS. Source: SDM 16.3.2.2; arch/x86/include/asm/mce.h. */
const VALID = 1n << 63n;
const LOST = 1n << 62n;
const ENABLED = 1n << 60n;
const CORRUPT = 1n << 57n;
/** Uncorrected, with an address and what kind of address it is. */
const UNCORRECTED = VALID | (1n << 61n) | ENABLED | (1n << 59n) | (1n << 58n);
const SIGNALED = 1n << 56n;
const ACTION = 1n << 55n;
/** A data load; the patrol scrubber; a read of memory. */
const REQUIRED = UNCORRECTED | SIGNALED | ACTION | 0x134n;
const OPTIONAL = UNCORRECTED | SIGNALED | 0xc0n;
const NO_ACTION = UNCORRECTED | 0x9fn;

/** IA32_MCG_STATUS. */
const RIPV = 1n;
const EIPV = 2n;
const MCIP = 4n;
const LOCAL = 8n;

/** The address is a physical one, and the whole page is bad. */
const MISC = 0x8cn;
const BANK = 1;

const hex = (number: bigint): string => `0x${number.toString(16)}`;

interface Check {
  readonly status: bigint;
  readonly global?: bigint;
}
const required: Check = { status: REQUIRED, global: MCIP | EIPV | RIPV };
const optional: Check = { status: OPTIONAL, global: MCIP | RIPV };

type Mode = 'user' | 'kernel' | 'copy';

let machine: QemuMachine | undefined;
afterEach(async () => {
  await machine?.kill();
  machine = undefined;
});

/** A machine with one processor that Linux takes for one of Intel's, and a task in it. */
async function boot(kernel: Kernel, options: Omit<QemuOptions, 'kernel'> = {}): Promise<Scene> {
  machine = await startQemu({ kernel, program: TASK, cpu: 'max,vendor=GenuineIntel', ...options });
  return new Scene(machine, await Task.start(machine));
}

class Scene {
  readonly #machine: QemuMachine;
  #task: Task;

  constructor(machine: QemuMachine, task: Task) {
    this.#machine = machine;
    this.#task = task;
  }

  /** Another task, in place of the one before. */
  async another(): Promise<void> {
    this.#task = await Task.start(this.#machine);
  }

  ask(order: string): Promise<string> {
    return this.#task.ask(order);
  }

  /** What the task says unasked. */
  heard(): Promise<string> {
    return this.#task.heard();
  }

  /** That the task goes on as before. */
  async isUndisturbed(): Promise<boolean> {
    return Promise.race([this.heard().then(() => false), this.settled().then(() => true)]);
  }

  /** When all has arrived that the kernel said, twice: what it does because of a machine check is done meanwhile. */
  async settled(): Promise<void> {
    for (let time = 0; time < 2; time++) {
      await setTimeout(250);
      await this.#machine.reportsSince(0);
    }
  }

  /** The frame in the answer of `frame` or `find`. */
  async frame(order: string): Promise<bigint> {
    const answer = await this.ask(order);
    if (!answer.startsWith('0x')) throw new Error(`${order}: ${answer}`);
    return BigInt(answer);
  }

  /** Answers what QEMU has to say of it. */
  async check(frame: bigint, { status, global = 0n }: Check): Promise<string> {
    const numbers = [status, global, frame << 12n, MISC].map(hex).join(' ');
    return (await this.#machine.command(`mce 0 ${BANK} ${numbers}`)).trim();
  }

  /** Whether the kernel's direct map shows the frame. Source: Documentation/arch/x86/x86_64/mm.rst. */
  async isInDirectMap(frame: bigint): Promise<boolean> {
    const base = ((await this.#register('CR4')) >> 12n) & 1n ? 0xff11_0000_0000_0000n : 0xffff_8880_0000_0000n;
    const gpa = (await this.#machine.command(`gva2gpa ${hex(base + (frame << 12n))}`)).trim();
    if (gpa === 'Unmapped') return false;
    if (gpa !== `gpa: ${hex(frame << 12n)}`) throw new Error(`the direct map shows ${gpa}`);
    return true;
  }

  /** Delivers a machine check to the processor when it is where it should be. Answers what QEMU has to say of it. */
  async checkIn(mode: Mode, frame: bigint, check: Check): Promise<string> {
    await this.stopIn(mode);
    const told = await this.check(frame, check);
    await this.goOn();
    return told;
  }

  /** Stops the processor in user mode, in the kernel, or in the kernel where it copies from user memory. */
  async stopIn(mode: Mode): Promise<void> {
    for (let attempt = 0; attempt < 500; attempt++) {
      await this.#machine.command('stop');
      if (await this.#isIn(mode)) return;
      await this.goOn();
      await setTimeout(attempt % 17);
    }
    throw new Error(`the processor was never met in mode ${mode}`);
  }

  async #isIn(mode: Mode): Promise<boolean> {
    const isInUserMode = (await this.#register('CPL')) === 3n;
    if (mode !== 'copy') return isInUserMode === (mode === 'user');
    const [rip, rsi] = [await this.#register('RIP'), await this.#register('RSI')];
    const bytes = await this.#machine.command(`x /2xb ${hex(rip)}`);
    // `rep movsb`, from the lower half of the address space: the instruction to which the fixup belongs.
    return !isInUserMode && rsi >> 63n === 0n && bytes.includes(': 0xf3 0xa4');
  }

  async goOn(): Promise<void> {
    await this.#machine.command('cont');
  }

  async #register(name: string): Promise<bigint> {
    const [, value] = new RegExp(`\\b${name}=([0-9a-f]+)`).exec(await this.#machine.command('info registers')) ?? [];
    if (value === undefined) throw new Error(`QEMU tells no ${name}`);
    return BigInt(`0x${value}`);
  }

  async says(text: RegExp): Promise<void> {
    const said = (): string => this.#machine.log.tail(2000);
    // The console is slower than the port.
    for (let time = 0; time < 40 && !text.test(said()); time++) await this.settled();
    if (!text.test(said())) throw new Error(`the kernel never said ${String(text)}:\n${said()}`);
  }

  /** What the machine ended with. */
  async end(): Promise<string> {
    await this.#machine.exited;
    return this.#machine.log.tail(2000);
  }
}

qemuSuite(
  'debian',
  (kernel) => {
    it('a task that was running loses the page, is told, and goes on; so does the machine', async () => {
      const scene = await boot(kernel);
      for (const [memory, page] of [
        ['anon', 0],
        ['shared', 1],
      ] as const) {
        await scene.another();
        await scene.ask(`${memory} 2`);
        const frame = await scene.frame(`frame ${page}`);
        expect(await scene.isInDirectMap(frame)).toBe(true);
        await scene.ask(`spin ${page}`);
        await scene.checkIn('user', frame, required);
        expect(await scene.heard()).toMatch(new RegExp(`SIGBUS AR ${page}$`));
        expect(await scene.isInDirectMap(frame)).toBe(false);
        expect(await scene.ask(`poisoned ${page}`)).toBe('1');
        expect(await scene.ask(`load ${page}`)).toBe(`0 SIGBUS AR ${page}`);
        expect(await scene.ask(`load ${1 - page}`)).toBe(`${2 - page}`);
        expect(await scene.ask(`unpoison ${page}`)).toBe('-EOPNOTSUPP');
      }

      // A frame that nobody has: the task in whose time it came up is left alone.
      await scene.another();
      await scene.ask('anon 1');
      const free = await scene.frame('find 10');
      await scene.ask('spin 0');
      await scene.checkIn('user', free, required);
      expect(await scene.isUndisturbed()).toBe(true);
      await scene.says(/recovery action for free buddy page: Recovered/);
      expect(await scene.isInDirectMap(free)).toBe(false);

      // One that memory_failure() does nothing about, and says so: a signal without an address.
      await scene.another();
      await scene.ask('anon 1');
      const slab = await scene.frame('find 7');
      await scene.ask('spin 0');
      await scene.checkIn('user', slab, required);
      expect(await scene.heard()).toMatch(/SIGBUS KERNEL -$/);
      await scene.says(/recovery action for reserved kernel page: Ignored\n(.*\n)*.*Memory error not recovered/);
      expect(await scene.isInDirectMap(slab)).toBe(true);

      // A page that has failed before: its owner is told, though it used another one.
      await scene.another();
      await scene.ask('anon 2');
      const known = await scene.frame('frame 0');
      await scene.ask('corrupt 0');
      await scene.ask('spin 1');
      await scene.checkIn('user', known, required);
      expect(await scene.heard()).toMatch(/SIGBUS AR 0$/);
      expect(await scene.isInDirectMap(known)).toBe(true);
    });

    it('what needs no action at once is unmapped, and told to whoever asked or touches it', async () => {
      const scene = await boot(kernel);
      await scene.ask('anon 2');
      const late = await scene.frame('frame 0');
      await scene.check(late, optional);
      await scene.settled();
      expect(await scene.isInDirectMap(late)).toBe(false);
      expect(await scene.ask('load 0')).toBe('0 SIGBUS AR 0');
      expect(await scene.ask('load 1')).toBe('2');

      await scene.another();
      await scene.ask('anon 2');
      await scene.ask('early');
      const early = await scene.frame('frame 1');
      await scene.check(early, optional);
      await scene.settled();
      expect(await scene.ask('poisoned 1')).toBe('1 SIGBUS AO 1');

      // What needs no action at all is told by CMCI; an exception that says so, to one processor, is taken note of.
      const fine = await scene.frame('frame 0');
      await scene.check(fine, { status: NO_ACTION, global: LOCAL | MCIP | RIPV });
      await scene.settled();
      expect(await scene.ask('poisoned 0')).toBe('0');
      expect(await scene.isInDirectMap(fine)).toBe(true);
      expect(await scene.ask('load 0')).toBe('1');
    });

    it('a copy from user space is broken off, and nobody is told; the page is gone', async () => {
      const scene = await boot(kernel);
      await scene.ask('anon 1');
      const frame = await scene.frame('frame 0');
      await scene.ask('copying');
      await scene.checkIn('copy', frame, required);
      await scene.says(new RegExp(`Kernel accessed poison in user space at ${(frame << 12n).toString(16)}`));
      await scene.says(/recovery action for dirty LRU page: Recovered/);
      expect(await scene.isInDirectMap(frame)).toBe(false);
      // The system call is short, or it has copied the rest.
      expect(await Promise.race([scene.heard(), scene.settled().then(() => '0')])).toMatch(/^\d+$/);
    });
  },
  ': machine checks',
);

/** What a machine check comes to that no kernel gets over. */
interface Fatal {
  readonly check: Check;
  /** What the task is at. */
  readonly order: string;
  readonly says: RegExp;
  readonly options?: Omit<QemuOptions, 'kernel'>;
}

/** QEMU ends with its machine, before it has answered or after. */
const orGone = (told: Promise<string>): Promise<string> => told.catch(() => 'gone');

const FATAL: Readonly<Record<string, Fatal>> = {
  'in the kernel, where no fixup is': {
    check: required,
    order: 'idle',
    says: /Data load in unrecoverable area of kernel\n(.*\n)*.*Kernel panic - not syncing: Fatal machine check/,
  },
  'after others that were lost': {
    check: { ...required, status: REQUIRED | LOST },
    order: 'spin 0',
    says: /Action required with lost events\n(.*\n)*.*Kernel panic - not syncing: Fatal machine check/,
  },
  'with the processor’s context corrupt': {
    check: { ...required, status: REQUIRED | CORRUPT },
    order: 'spin 0',
    says: /Processor context corrupt\n(.*\n)*.*Kernel panic - not syncing: Fatal machine check/,
  },
  'that needs no action, but comes to all processors': {
    check: { status: NO_ACTION, global: MCIP | RIPV },
    order: 'spin 0',
    says: /Kernel panic - not syncing: Fatal machine check from unknown source/,
  },
  'on a processor of AMD’s without recovery': {
    check: required,
    order: 'spin 0',
    says: /Uncorrected error without MCA Recovery\n(.*\n)*.*Kernel panic - not syncing: Fatal/,
    options: { cpu: 'max' },
  },
};

qemuSuite(
  'built',
  (kernel) => {
    it.each(Object.entries(FATAL))('%s: panic', async (_what, { check, order, says, options }) => {
      const scene = await boot(kernel, options);
      await scene.ask('anon 1');
      const frame = await scene.frame('frame 0');
      await scene.ask(order);
      await scene.checkIn(order === 'idle' ? 'kernel' : 'user', frame, check);
      expect(await scene.end()).toMatch(says);
    });

    it('one while another is in progress: a triple fault', async () => {
      const scene = await boot(kernel);
      await scene.ask('anon 1');
      const frame = await scene.frame('frame 0');
      await scene.ask('spin 0');
      await scene.stopIn('user');
      expect(await scene.check(frame, required)).toBe('');
      expect(await orGone(scene.check(frame, required))).toMatch(/Previous MCE still in progress|gone/);
      expect(await scene.end()).not.toMatch(/panic/);
    });

    it('one where CR4.MCE is clear: a triple fault', async () => {
      const scene = await boot(kernel, { append: 'mce=off' });
      await scene.ask('anon 1');
      const told = await orGone(scene.check(await scene.frame('frame 0'), required));
      expect(told).toMatch(/MCE capability is not enabled|gone/);
      expect(await scene.end()).not.toMatch(/panic/);
    });
  },
  ': machine checks that it does not survive',
);
