/** What the kernel of this machine says, as /dev/kmsg hands it out. Source: Documentation/ABI/testing/dev-kmsg. */
import { closeSync, constants, openSync, readlinkSync, readSync } from 'node:fs';
import { KernelLog, type KernelReport } from './kernel-log.ts';

/** `6,339,5140900,-;text`: the priority, then what nobody here asks for. What follows in lines of its own is indented. */
const RECORD = /^(?<priority>\d+),[^;]*;(?<text>.*)/;
/** How a byte is written that is not to be printed. */
const ESCAPED = /\\x([0-9a-f]{2})/g;
/** Priorities below this are of the kernel; others are of processes that write to the log. */
const USER_PRIORITY = 8;

/** How a report names the process that the kernel worked for: `CPU: 1 UID: 0 PID: 87 Comm: agent`, `pid:87`. */
const PROCESS = /\bpid: ?(\d+)/i;

/** The longest record is shorter. */
const RECORD_BYTES = 16 << 10;

/** The namespace in which processes have the numbers that the kernel's log names. Source: include/uapi/linux/nsfs.h. */
const INITIAL_PID_NAMESPACE = 'pid:[4026531836]';

/** Why reports cannot be told from those that others have brought about, or undefined where they can. */
function numbersDiffer(): string | undefined {
  return readlinkSync('/proc/self/ns/pid') === INITIAL_PID_NAMESPACE
    ? undefined
    : 'processes have other numbers here than in the log of the kernel';
}

export class KernelMessages {
  readonly #descriptor: number;
  readonly #log = new KernelLog();
  readonly #buffer = Buffer.alloc(RECORD_BYTES);
  #told = 0;

  private constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /** From now on; or the reason why they cannot be watched. */
  static watch(path = '/dev/kmsg'): KernelMessages | string {
    try {
      const reason = numbersDiffer();
      if (reason !== undefined) return reason;
      const messages = new KernelMessages(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
      messages.reportsOn(undefined);
      return messages;
    } catch (error) {
      return `${path} cannot be read: ${(error as NodeJS.ErrnoException).code ?? String(error)}`;
    }
  }

  /** The reports since this was last asked that are about the process, or do not say whom they are about. */
  reportsOn(pid: number | undefined): readonly KernelReport[] {
    for (let record = this.#next(); record !== ''; record = this.#next()) this.#take(record);
    const reports = this.#log.reportsSince(this.#told);
    this.#told += reports.length;
    return reports.filter(({ lines }) => {
      const [, named] = PROCESS.exec(lines.join('\n')) ?? [];
      return named === undefined || Number(named) === pid;
    });
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  #take(records: string): void {
    for (const line of records.split('\n')) {
      const { priority, text } = RECORD.exec(line)?.groups ?? {};
      if (text === undefined || Number(priority) >= USER_PRIORITY) continue;
      const said = text.replace(ESCAPED, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)));
      this.#log.push(Buffer.from(`${said}\n`));
    }
  }

  /** What is read at once: from the device a record, from a file many. Empty at the end. */
  #next(): string {
    for (;;) {
      try {
        return this.#buffer.toString('utf8', 0, readSync(this.#descriptor, this.#buffer));
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === 'EAGAIN') return '';
        // Records were overwritten before they were read; the next read gives the oldest that is left.
        if (code !== 'EPIPE') throw error;
      }
    }
  }
}
