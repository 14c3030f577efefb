/**
 * Text of ftrace, trace-cmd or perf: `kvm:kvm_hypercall` tells the arguments of a call, before anything is checked; the next event
 * of the same task tells whether it got to user space. Source: arch/x86/kvm/trace.h, include/trace/events/kvm.h.
 */
import type { Came, LogEntry } from '../adapter.ts';
import { announcement } from './announcements.ts';
import type { TextLine } from './lines.ts';

const EVENT =
  /^\s*(\S.*?)\s+(?:\([^)]*\)\s+)?\[[0-9]+\]\s+(?:\S+\s+)?([0-9]+\.[0-9]+):\s+(?:kvm:)?(kvm_[a-z_]+):\s*(.*)$/;
const HYPERCALL = /^nr (0x[0-9a-f]+) a0 (0x[0-9a-f]+) a1 (0x[0-9a-f]+) a2 (0x[0-9a-f]+) a3 0x[0-9a-f]+\s*$/;
const LOST = /\[LOST [0-9]+ EVENTS\]|dropped|overrun/i;

const KVM_HC_MAP_GPA_RANGE = 12n;

/** A call of which the task has not told yet what came of it. */
interface Asked {
  readonly line: number;
  readonly seconds: number;
  readonly args: readonly [gpa: bigint, pages: bigint, attributes: bigint];
}

export class Ftrace {
  readonly #asked = new Map<string, Asked>();
  /** Without events that follow a call nobody can tell what came of it. */
  #tellsExits = false;

  /** Undefined where the line is not of this kind. */
  read({ line, text = '' }: TextLine): readonly LogEntry[] | undefined {
    const event = EVENT.exec(text);
    if (event === null) return LOST.test(text) ? this.#lost(line) : undefined;
    const [, task = '', seconds = '', name = '', rest = ''] = event;
    if (name === 'kvm_hypercall') return this.#hypercall(task, { line, seconds: Number(seconds) }, rest);
    if (name === 'kvm_userspace_exit') return this.#ended(task, rest.includes('HYPERCALL') ? 'reached' : undefined);
    return name === 'kvm_entry' ? this.#ended(task, 'refused') : [];
  }

  /** What came of the calls that are pending may be among what was lost; and so may calls that nobody heard of. */
  #lost(line: number): readonly LogEntry[] {
    return [...this.end(), { line, kind: 'gap' }];
  }

  /** What is left when the log is over. */
  end(): readonly LogEntry[] {
    return [...this.#asked.keys()].flatMap((task) => this.#end(task, undefined));
  }

  #hypercall(task: string, at: Pick<Asked, 'line' | 'seconds'>, rest: string): readonly LogEntry[] {
    const before = this.#end(task, undefined);
    const call = HYPERCALL.exec(rest);
    if (call === null)
      return [
        ...before,
        { line: at.line, kind: 'malformed', why: 'not a call: write `nr 0x… a0 0x… a1 0x… a2 0x… a3 0x…`' },
      ];
    const [nr = 0n, gpa = 0n, pages = 0n, attributes = 0n] = call.slice(1).map(BigInt);
    if (nr === KVM_HC_MAP_GPA_RANGE) this.#asked.set(task, { ...at, args: [gpa, pages, attributes] });
    return before;
  }

  #ended(task: string, came: Came | undefined): readonly LogEntry[] {
    this.#tellsExits ||= came === 'reached';
    return this.#end(task, came === 'refused' && !this.#tellsExits ? undefined : came);
  }

  #end(task: string, came: Came | undefined): readonly LogEntry[] {
    const asked = this.#asked.get(task);
    if (asked === undefined) return [];
    this.#asked.delete(task);
    const { line, seconds, args } = asked;
    return [{ line, kind: 'command', command: announcement(...args), came, seconds }];
  }
}
