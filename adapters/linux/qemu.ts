/** A machine in QEMU that runs agents: a kernel, agent/init.c as its first process, and a virtio port to talk over. */
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { accessSync, constants, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { constants as system, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { initramfs, type Pieces } from './initramfs.ts';
import { KernelLog } from './kernel-log.ts';

export interface QemuOptions extends Pieces {
  /** Path of a bzImage. */
  readonly kernel: string;
  readonly memoryMiB?: number;
  readonly cpus?: number;
  /** `auto` takes KVM where it works and lets its guests have KVM in turn, and emulation elsewhere. */
  readonly accel?: 'auto' | Accelerator;
  /** For the boot, and for each start of an agent. */
  readonly timeoutMs?: number;
  /** Added to the kernel's command line. */
  readonly append?: string;
}

export type Accelerator = 'kvm' | 'tcg';

/** How an agent ended. Neither code nor signal: the machine ended before it, or it does not die. */
export interface Departure {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** An agent, and the connection that it has to itself: when one ends, so does the other. */
export interface Agent {
  readonly stream: Socket;
  /** Ends it by force. May be called when that was done already. */
  kill(): void;
  /** Resolves some time after kill() in any case. */
  readonly departed: Promise<Departure>;
}

const UNKNOWN: Departure = { code: null, signal: null };

/** How QEMU ended. */
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

/** Only warnings go to the console, so that the boot does not wait for it; a kernel that ends takes QEMU along. */
const COMMAND_LINE = 'console=ttyS0 loglevel=5 printk.devkmsg=on panic=-1 mitigations=off nokaslr cryptomgr.notests';

/** Resolves when an agent can be started. Throws QemuFailure. */
export async function startQemu(options: QemuOptions): Promise<QemuMachine> {
  const { kernel, memoryMiB = 512, cpus = 2, accel = 'auto', timeoutMs = 60_000, append = '' } = options;
  const qemu = commandPath(QEMU);
  if (qemu === undefined) throw new QemuFailure(`there is no ${QEMU}: apt-get install qemu-system-x86`);
  if (!existsSync(kernel)) throw new QemuFailure(`there is no kernel ${kernel}`);
  const image = initramfs(options);
  const chosen = accel === 'auto' ? (kvmWorks(qemu) ? 'kvm' : 'tcg') : accel;

  const folder = mkdtempSync(join(tmpdir(), 'gmem-qemu-'));
  writeFileSync(join(folder, 'initramfs'), image);
  const machine = new QemuMachine(folder, chosen, timeoutMs, [
    ...[qemu, '-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none', '-machine', 'q35'],
    // When emulated, `max` has SVM with nested paging. Under KVM it has what the host passes on.
    ...['-accel', chosen, '-cpu', 'max', '-smp', `${cpus}`, '-m', `${memoryMiB}M`],
    ...['-kernel', kernel, '-initrd', join(folder, 'initramfs'), '-append', `${COMMAND_LINE} ${append}`.trim()],
    ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=gmem,path=${portPath(folder)},server=on,wait=off`],
    ...['-device', 'virtio-serial-pci', '-device', 'virtserialport,chardev=gmem,name=gmem'],
  ]);
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

export class QemuMachine {
  readonly log = new KernelLog();
  readonly accel: Accelerator;
  /** Resolves when the machine is gone, whatever the reason. */
  readonly exited: Promise<QemuExit>;
  readonly #folder: string;
  readonly #timeoutMs: number;
  readonly #startedAt = performance.now();
  readonly #child: ChildProcessWithoutNullStreams;
  #bootMs = Number.NaN;
  readonly #ends = new EventEmitter<{ agent: [Departure] }>();
  #stage: Stage = 'booting';
  #agent: Agent | undefined;

  /** For startQemu(). The folder is the machine's own, and goes with it. */
  constructor(folder: string, accel: Accelerator, timeoutMs: number, command: readonly string[]) {
    this.#folder = folder;
    this.accel = accel;
    this.#timeoutMs = timeoutMs;
    this.log.on('line', (line) => this.#follow(line));
    this.#child = spawnDependent(command);
    this.#child.stdout.on('data', (chunk: Buffer) => this.log.push(chunk));
    // That nobody reads any more is not news: `exited` says it.
    this.#child.stdin.on('error', () => undefined);
    this.exited = this.#watch();
  }

  /** From the start of QEMU until an agent could be started. */
  get bootMs(): number {
    return this.#bootMs;
  }

  /** For startQemu(). */
  async booted(): Promise<void> {
    await this.#reach('waiting', 'does not boot');
    this.#bootMs = performance.now() - this.#startedAt;
  }

  /** Starts an agent; an earlier one is killed. Not to be called again before it has resolved. Throws QemuFailure. */
  async connect(): Promise<Agent> {
    this.#agent?.kill();
    await this.#reach('waiting', 'does not get rid of its agent');
    const stream = connect(portPath(this.#folder));
    this.#agent = this.#accompany(stream);
    await this.#reach('running', 'starts no agent');
    return this.#agent;
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
        this.#ends.emit('agent', UNKNOWN);
        resolve({ code, signal, stderr: stderr.trim() });
      });
    });
  }

  #follow(line: string): void {
    const ended = ENDED.exec(line);
    if (WAITING.test(line)) this.#stage = 'waiting';
    else if (STARTED.test(line)) this.#stage = 'running';
    else if (ended !== null) {
      const { code, signal } = ended.groups as { code?: string; signal?: string };
      this.#stage = 'ended';
      this.#ends.emit('agent', { code: code === undefined ? null : Number(code), signal: signalName(signal) });
    }
  }

  #accompany(stream: Socket): Agent {
    let death: NodeJS.Timeout | undefined;
    let gone = false;
    const departed = new Promise<Departure>((resolve) => this.#ends.once('agent', resolve)).finally(() => {
      gone = true;
      clearTimeout(death);
      // What the agent wrote before it ended still arrives.
      stream.end();
    });
    const kill = () => {
      stream.destroy();
      if (gone) return;
      this.#child.stdin.write('k\n');
      death ??= setTimeout(() => this.#ends.emit('agent', UNKNOWN), DEATH_MS);
    };
    // A broken stream closes, and its agent departs; there is no more to it.
    stream.on('error', () => undefined);
    return { stream, kill, departed };
  }

  /** Waits until init says that it is at this stage. */
  #reach(stage: Stage, failure: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (error?: QemuFailure) => {
        clearTimeout(timer);
        this.log.off('line', look);
        if (error === undefined) resolve();
        else reject(error);
      };
      const look = () => {
        if (this.#stage === stage) settle();
      };
      const fail = (why: string) =>
        settle(
          new QemuFailure(`the machine ${failure}: ${why}\nthe end of its console:\n${this.log.tail(CONSOLE_TAIL)}`),
        );
      const timer = setTimeout(() => fail(`it took longer than ${this.#timeoutMs} ms`), this.#timeoutMs);
      void this.exited.then(({ code, stderr }) => fail(`QEMU ended (${code ?? 'killed'}) ${stderr}`));
      this.log.on('line', look);
      look();
    });
  }
}

function signalName(number: string | undefined): NodeJS.Signals | null {
  const [name = null] = Object.entries(system.signals).find(([, value]) => value === Number(number)) ?? [];
  return name as NodeJS.Signals | null;
}

const portPath = (folder: string): string => join(folder, 'port');

/** Started so that it dies when this process does, however that comes; where setpriv is missing, not if killed. */
function spawnDependent(command: readonly string[]): ChildProcessWithoutNullStreams {
  const setpriv = commandPath('setpriv');
  const dependent = setpriv === undefined ? command : [setpriv, '--pdeathsig', 'KILL', ...command];
  return spawn(dependent[0] ?? '', dependent.slice(1));
}

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
