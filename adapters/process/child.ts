/** A child process with lines on its standard output, and the certainty that it ends. */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { LineReader } from './lines.ts';

export interface ChildOptions {
  /** Sees standard error as it comes. */
  readonly onStderr: (text: string) => void;
  /** How long each stage of ending a process may take. */
  readonly graceMs?: number;
}

export interface Listener {
  onLine(line: Buffer): void;
  /** A line is longer than a line may be. */
  onTooLong(): void;
  /** The conversation is over, in words: `exited with 3`. Called once. */
  onGone(how: string): void;
}

/** What to do about a program that cannot be started, by the error. */
const HINTS: Readonly<Record<string, string>> = {
  ENOENT: '; give the path of a program, with a slash in it, or the name of one that PATH has',
  EACCES: '; it is no program, or one that may not be executed: chmod +x, or name its interpreter',
};

const GRACE_MS = 2000;
/** What a dying process has written arrives at once; only a process that inherited its pipes keeps them open longer. */
const DRAIN_MS = 200;

export class Child {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #listener: Listener;
  readonly #graceMs: number;
  readonly #reader: LineReader;
  readonly #ended: Promise<void>;
  #isOver = false;
  #isSwept = false;

  /** Throws where the system refuses at once; most of what keeps a program from starting is told to the listener. */
  constructor([program, ...args]: readonly [string, ...string[]], listener: Listener, options: ChildOptions) {
    const { graceMs = GRACE_MS, onStderr } = options;
    this.#listener = listener;
    this.#graceMs = graceMs;
    this.#reader = new LineReader(
      (line) => listener.onLine(line),
      () => listener.onTooLong(),
    );
    // A group of its own, so that the processes that it starts end with it.
    this.#process = spawn(program, args, { stdio: 'pipe', detached: true });
    this.#process.stderr.setEncoding('utf8').on('data', onStderr);
    this.#process.stdout.on('data', (chunk: Buffer) => this.#reader.push(chunk));
    this.#ended = this.#watchProcess();
    this.#watchPipes();
  }

  #watchProcess(): Promise<void> {
    const child = this.#process;
    const sweep = (): void => this.#signal('SIGKILL');
    process.once('exit', sweep);
    return new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        // What it has started goes with it.
        sweep();
        process.off('exit', sweep);
        setTimeout(() => this.#over(ending(code, signal)), DRAIN_MS);
        resolve();
      });
      // Behind the last line of its output.
      child.once('close', (code, signal) => this.#over(ending(code, signal)));
      child.once('error', (error: NodeJS.ErrnoException) => {
        process.off('exit', sweep);
        this.#over(`could not be started: ${error.message}${HINTS[error.code ?? ''] ?? ''}`);
        resolve();
      });
    });
  }

  /** A pipe that breaks is the beginning of the end of most processes, so that how they end is worth waiting for. */
  #watchPipes(): void {
    const { stdin, stdout, stderr } = this.#process;
    const soon = (how: string) => (): void => void setTimeout(() => this.#over(how), DRAIN_MS);
    stdin.on('error', soon('closed its standard input'));
    stdout.on('end', soon('closed its standard output'));
    for (const stream of [stdout, stderr]) stream.on('error', () => undefined);
  }

  #over(how: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#listener.onGone(how);
  }

  /** Bytes that it has written, and no newline behind them. */
  get unended(): number {
    return this.#reader.unended;
  }

  write(line: string): void {
    this.#process.stdin.write(line);
  }

  /** Closes its standard input, and waits until it has ended, by force if need be. */
  async end(): Promise<void> {
    this.#process.stdin.end();
    await this.#endsWithin(this.#graceMs);
    await this.kill();
  }

  /** Ends it and every process of its group. */
  async kill(): Promise<void> {
    this.#signal('SIGTERM');
    if (!(await this.#endsWithin(this.#graceMs))) {
      this.#signal('SIGKILL');
      // One that is stuck in the kernel does not even die of that.
      await this.#endsWithin(this.#graceMs);
    }
    for (const stream of [this.#process.stdin, this.#process.stdout, this.#process.stderr]) stream.destroy();
    this.#process.unref();
  }

  #signal(signal: NodeJS.Signals): void {
    const { pid } = this.#process;
    // Once it has ended and what was left of its group as well, its number may be somebody else's.
    if (pid === undefined || this.#isSwept) return;
    this.#isSwept = this.#process.exitCode !== null || this.#process.signalCode !== null;
    try {
      process.kill(-pid, signal);
    } catch {
      // There is nobody left.
    }
  }

  async #endsWithin(ms: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<false>((resolve) => (timer = setTimeout(() => resolve(false), ms)));
    try {
      return await Promise.race([this.#ended.then(() => true), late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

const ending = (code: number | null, signal: NodeJS.Signals | null): string =>
  signal === null ? `exited with ${code ?? 0}` : `was killed by ${signal}`;
