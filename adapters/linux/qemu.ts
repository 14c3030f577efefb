/** A machine in QEMU that runs agents: a kernel, agent/init.c as its first process, and a virtio port to talk over. */
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { accessSync, constants, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { constants as system, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { AgentConnection, type Departure, type Peer } from './agent.ts';
import { AGENT, compile, INIT, type Build } from './compile.ts';
import { initramfs } from './initramfs.ts';
import { KernelLog, type KernelReport } from './kernel-log.ts';
import type { Kernel } from './kernels.ts';
import { resolveModules } from './modules.ts';
import { Monitor } from './monitor.ts';

export interface QemuOptions {
  readonly kernel: Kernel;
  readonly memoryMiB?: number;
  readonly cpus?: number;
  /** `auto` takes KVM where it works and lets its guests have KVM in turn, and emulation elsewhere. */
  readonly accel?: 'auto' | Accelerator;
  /** For the boot, and for each start of an agent. */
  readonly timeoutMs?: number;
  /** Added to the kernel's command line. */
  readonly append?: string;
  /** What QEMU calls a model of a processor. */
  readonly cpu?: string;
  /** What init starts on the port; the agent. */
  readonly program?: Build;
}

export type Accelerator = 'kvm' | 'tcg';

/** How QEMU ended; neither code nor signal where it could not be started. */
export interface QemuExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stderr: string;
}

/** The machine cannot be started, or does not do what it should. */
export class QemuFailure extends Error {
  override readonly name = 'QemuFailure';
}

const QEMU = 'qemu-system-x86_64';
const CONSOLE_TAIL = 25;
/** How long an agent that was told to die may take. */
const DEATH_MS = 5000;
/** How long init may take to answer. */
const ANSWER_MS = 5000;

/**
 * Only warnings go to the console, so that the boot does not wait for it; a kernel that ends takes QEMU along. A timer of
 * an emulated machine may be late when the host has other things to do, and is there all the same (`no_timer_check`).
 */
const COMMAND_LINE =
  'console=ttyS0 loglevel=5 printk.devkmsg=on panic=-1 mitigations=off nokaslr cryptomgr.notests no_timer_check';

/** What the guest needs, where it is not built in. Emulated CPUs are of AMD's kind. */
const MODULES = ['virtio_pci', 'virtio_console', 'hwpoison_inject', 'kvm_amd'];
const MODULES_UNDER = { tcg: MODULES, kvm: [...MODULES, 'kvm_intel'] } as const;

/** Resolves when an agent can be started. Throws QemuFailure; NoCompiler or CompileFailed where there is no agent. */
export async function startQemu(options: QemuOptions): Promise<QemuMachine> {
  const { kernel, memoryMiB = 512, cpus = 1, accel = 'auto', timeoutMs = 180_000, append = '' } = options;
  // When emulated, `max` has SVM with nested paging. Under KVM it has what the host passes on.
  const { cpu = 'max', program = AGENT } = options;
  const qemu = qemuPath();
  if (qemu === undefined) throw new QemuFailure(`there is no ${QEMU}: apt-get install qemu-system-x86`);
  if (!existsSync(kernel.image)) throw new QemuFailure(`there is no kernel ${kernel.image}`);
  const chosen = accel === 'auto' ? (kvmWorks(qemu) ? 'kvm' : 'tcg') : accel;

  const modules = kernel.modules === undefined ? [] : resolveModules(kernel.modules, MODULES_UNDER[chosen]);
  const image = initramfs({ init: compile(INIT), agent: compile(program), modules });

  const folder = mkdtempSync(join(tmpdir(), 'gmem-qemu-'));
  writeFileSync(join(folder, 'initramfs'), image);
  const child = spawnDependent(qemu, [
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none', '-machine', 'q35'],
    ...['-accel', chosen, '-cpu', cpu, '-smp', `${cpus}`, '-m', `${memoryMiB}M`],
    ...['-kernel', kernel.image, '-initrd', join(folder, 'initramfs'), '-append', `${COMMAND_LINE} ${append}`.trim()],
    ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=gmem,path=${portPath(folder)},server=on,wait=off`],
    ...['-device', 'virtio-serial-pci', '-device', 'virtserialport,chardev=gmem,name=gmem'],
    ...['-chardev', `socket,id=monitor,path=${monitorPath(folder)},server=on,wait=off`],
    ...['-mon', 'chardev=monitor,mode=control'],
  ]);
  const machine = new QemuMachine(child, { folder, accel: chosen, timeoutMs });
  try {
    await machine.booted();
  } catch (error) {
    await machine.kill();
    throw error;
  }
  return machine;
}

/** What init in the guest says it is at. */
type Stage = 'booting' | 'waiting' | 'running' | 'ended';
const WAITING = /^init: waiting for the host$/;
const STARTED = /^init: agent started$/;
const ENDED = /^init: agent (?:exited with (?<code>\d+)|killed by signal (?<signal>\d+))$/;
const PRESENT = /^init: present$/;
const FAILS_MEMORY = /^init: memory fails on request$/;
/** What init is told: kill the agent; say that you are present. */
const KILL = 'k\n';
const PING = 'p\n';

interface Setting {
  /** The machine's own, and goes with it. */
  readonly folder: string;
  readonly accel: Accelerator;
  readonly timeoutMs: number;
}

export class QemuMachine {
  readonly log = new KernelLog();
  readonly accel: Accelerator;
  /** Resolves when the machine is gone, whatever the reason. */
  readonly exited: Promise<QemuExit>;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #folder: string;
  readonly #timeoutMs: number;
  readonly #startedAt = performance.now();
  #bootMs = Number.NaN;
  #stage: Stage = 'booting';
  /** To pings, so far. */
  #answers = 0;
  #failsMemory = false;
  #monitor: Promise<Monitor> | undefined;
  #agent: GuestAgent | undefined;

  /** For startQemu(). */
  constructor(child: ChildProcessWithoutNullStreams, { folder, accel, timeoutMs }: Setting) {
    this.#child = child;
    this.#folder = folder;
    this.accel = accel;
    this.#timeoutMs = timeoutMs;
    this.log.on('line', (line) => this.#follow(line));
    child.stdout.on('data', (chunk: Buffer) => this.log.push(chunk));
    // That nobody reads any more is not news: `exited` says it.
    child.stdin.on('error', () => undefined);
    this.exited = this.#watch();
  }

  /** From the start of QEMU until an agent could be started. */
  get bootMs(): number {
    return this.#bootMs;
  }

  /** Whether programs may have memory fail: see agent/frames.h. */
  get failsMemory(): boolean {
    return this.#failsMemory;
  }

  /** For startQemu(). */
  async booted(): Promise<void> {
    await this.#reach('waiting', 'does not boot');
    this.#bootMs = performance.now() - this.#startedAt;
  }

  /** Starts an agent; an earlier one is killed. Not to be called again before it has resolved. Throws QemuFailure. */
  connect(): Promise<AgentConnection> {
    return this.start((stream, peer) => new AgentConnection(stream, stream, peer));
  }

  /** As connect(), for a program that speaks another language than the agent. */
  async start<T>(speak: (stream: Socket, peer: Peer) => T): Promise<T> {
    this.#agent?.kill();
    await this.#reach('waiting', 'does not get rid of its agent');
    const stream = connect(portPath(this.#folder));
    const agent = new GuestAgent(stream, () => this.#child.stdin.write(KILL));
    const spoken = speak(stream, agent);
    this.#agent = agent;
    await this.#reach('running', 'starts no agent');
    return spoken;
  }

  /** A command of QEMU's monitor for people, and what it prints. Rejects where QEMU is gone. */
  async command(line: string): Promise<string> {
    this.#monitor ??= Monitor.connect(monitorPath(this.#folder));
    return (await this.#monitor).command(line);
  }

  /**
   * The reports since a mark of the log, when all has arrived that the kernel said until now: the console is not as
   * fast as the agent. For a machine that is gone, or says nothing any more, what is there.
   */
  async reportsSince(mark: number): Promise<readonly KernelReport[]> {
    if (this.#stage === 'running') {
      const before = this.#answers;
      this.#child.stdin.write(PING);
      const answered = () => this.#answers > before || this.#stage !== 'running';
      await this.#until(answered, 'does not answer', ANSWER_MS).catch(() => undefined);
    }
    return this.log.reportsSince(mark);
  }

  async kill(): Promise<QemuExit> {
    this.#child.kill('SIGKILL');
    return this.exited;
  }

  #watch(): Promise<QemuExit> {
    let stderr = '';
    this.#child.stderr.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-4096)));
    const cleanUp = () => {
      this.#child.kill('SIGKILL');
      rmSync(this.#folder, { recursive: true, force: true });
    };
    process.once('exit', cleanUp);
    return new Promise((resolve) => {
      this.#child.once('error', (error) => (stderr += error.message));
      this.#child.once('close', (code, signal) => {
        process.removeListener('exit', cleanUp);
        cleanUp();
        this.#agent?.depart(null, 'SIGKILL', `the machine ended\n${this.log.tail(CONSOLE_TAIL)}`);
        resolve({ code, signal, stderr: stderr.trim() });
      });
    });
  }

  #follow(line: string): void {
    const ended = ENDED.exec(line);
    if (WAITING.test(line)) this.#stage = 'waiting';
    else if (STARTED.test(line)) this.#stage = 'running';
    else if (PRESENT.test(line)) this.#answers++;
    else if (FAILS_MEMORY.test(line)) this.#failsMemory = true;
    else if (ended === null) this.#agent?.hear(line);
    else {
      const { code, signal } = ended.groups as { code?: string; signal?: string };
      this.#stage = 'ended';
      this.#agent?.depart(code === undefined ? null : Number(code), signalName(signal));
    }
  }

  #reach(stage: Stage, failure: string): Promise<void> {
    return this.#until(() => this.#stage === stage, failure, this.#timeoutMs);
  }

  /** Waits for something that the console tells. */
  #until(arrived: () => boolean, failure: string, timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (settled: () => void) => {
        clearTimeout(timer);
        this.log.off('line', look);
        settled();
      };
      const look = () => {
        if (arrived()) settle(resolve);
      };
      const fail = (why: string) => {
        const message = `the machine ${failure}: ${why}\nthe end of its console:\n${this.log.tail(CONSOLE_TAIL)}`;
        settle(() => reject(new QemuFailure(message)));
      };
      const timer = setTimeout(() => fail(`it took longer than ${timeoutMs} ms`), timeoutMs);
      void this.exited.then(({ code, signal, stderr }) =>
        fail(`QEMU ended (${code ?? signal ?? 'not started'}) ${stderr}`),
      );
      this.log.on('line', look);
      look();
    });
  }
}

/** An agent and the connection that it has to itself: when one ends, so does the other. */
class GuestAgent implements Peer {
  readonly departed: Promise<Departure>;
  readonly #stream: Socket;
  readonly #tellInit: () => void;
  readonly #said: string[] = [];
  #resolve: ((departure: Departure) => void) | undefined;
  #death: NodeJS.Timeout | undefined;

  constructor(stream: Socket, tellInit: () => void) {
    this.#stream = stream;
    this.#tellInit = tellInit;
    this.departed = new Promise((resolve) => (this.#resolve = resolve));
  }

  kill(): void {
    this.#stream.destroy();
    if (this.#resolve === undefined || this.#death !== undefined) return;
    this.#tellInit();
    this.#death = setTimeout(() => this.depart(null, null), DEATH_MS);
  }

  /** What the console says while the agent runs: the agent itself, and the kernel of it. */
  hear(line: string): void {
    this.#said.push(line);
    if (this.#said.length > CONSOLE_TAIL) this.#said.shift();
  }

  /** The agent has ended, or nobody knows. Only the first call counts. */
  depart(code: number | null, signal: NodeJS.Signals | null, last?: string): void {
    clearTimeout(this.#death);
    // What the agent wrote before it ended still arrives.
    this.#stream.end();
    this.#resolve?.({ code, signal, stderr: last ?? this.#said.join('\n') });
    this.#resolve = undefined;
  }
}

function signalName(number: string | undefined): NodeJS.Signals | null {
  const [name = null] = Object.entries(system.signals).find(([, value]) => value === Number(number)) ?? [];
  return name as NodeJS.Signals | null;
}

const monitorPath = (folder: string): string => join(folder, 'monitor');
const portPath = (folder: string): string => join(folder, 'port');

/** The command dies when this process does, however that comes; where setpriv is missing, not if this is killed. */
function spawnDependent(command: string, args: readonly string[]): ChildProcessWithoutNullStreams {
  const setpriv = commandPath('setpriv');
  return setpriv === undefined ? spawn(command, args) : spawn(setpriv, ['--pdeathsig', 'KILL', command, ...args]);
}

/** Where QEMU is, or undefined where it is not installed. */
export const qemuPath = (): string | undefined => commandPath(QEMU);

function commandPath(name: string): string | undefined {
  const candidates = (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, name));
  return candidates.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Does QEMU get a virtual machine from KVM, and may guests have virtual machines of their own? */
function kvmWorks(qemu: string): boolean {
  const nested = ['amd', 'intel'].map((maker) => `/sys/module/kvm_${maker}/parameters/nested`);
  if (!nested.some((path) => existsSync(path) && /^[1Y]/.test(readFileSync(path, 'utf8')))) return false;
  const paused = ['-accel', 'kvm', '-machine', 'q35', '-nodefaults', '-display', 'none', '-S', '-monitor', 'stdio'];
  return spawnSync(qemu, paused, { input: 'quit\n', timeout: 10_000 }).status === 0;
}
