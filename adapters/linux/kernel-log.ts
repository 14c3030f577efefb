/** What a kernel says on its console, and the reports of something wrong in it. */
import { EventEmitter } from 'node:events';
import { StringDecoder } from 'node:string_decoder';
import { parsePlace, type Place } from './places.ts';

/** Words that Linux developers use; the first line of a report says the rest. */
export type ReportKind = 'panic' | 'sanitizer' | 'oops' | 'warning' | 'lockdep' | 'bug' | 'hung-task' | 'rcu-stall';

export interface KernelReport {
  readonly kind: ReportKind;
  /** The line that says what is wrong. */
  readonly title: string;
  /** All lines of the report, without time stamps. */
  readonly lines: readonly string[];
  /** False until its end has arrived; a kernel that died leaves it so. */
  readonly complete: boolean;
  /** Where the program was when the kernel began to speak, if it says that in the log. */
  readonly place: Place | undefined;
}

const CUT_HERE = /^-+\[ cut here \]-+$/;
const END_TRACE = /^---\[ end trace /;
const END_STACK = /^ <\/TASK>$/;

/** How reports begin and end. The first that fits counts, so special ones stand before general ones. */
const KINDS: readonly { readonly kind: ReportKind; readonly start: RegExp; readonly end: RegExp }[] = [
  { kind: 'panic', start: /^Kernel panic - not syncing/, end: /^---\[ end Kernel panic/ },
  { kind: 'sanitizer', start: /^(BUG: (K\w+SAN|KFENCE)|UBSAN): /, end: /^(={20,}$|---\[ end trace )/ },
  {
    kind: 'oops',
    start:
      /^(BUG: (unable to handle|kernel NULL pointer)|kernel BUG at |Oops: |general protection fault|divide error: )/,
    end: END_TRACE,
  },
  { kind: 'warning', start: /^WARNING: .*\bCPU[:#]/, end: END_TRACE },
  // A WARNING that names no CPU is of the lock checker.
  { kind: 'lockdep', start: /^(WARNING: |INFO: trying to register non-static key|\[ BUG: )/, end: END_STACK },
  { kind: 'bug', start: /^(watchdog: )?BUG: /, end: END_STACK },
  { kind: 'hung-task', start: /^INFO: task .* blocked /, end: END_STACK },
  { kind: 'rcu-stall', start: /^rcu: INFO: .* stall/, end: END_STACK },
];

/** `[    1.234567] ` or `[    1.234567][   T42] `, and what a terminal is told. */
const DECORATION = /^(\x1b\[[\d;]*\w|\x1bc)*(\[ *\d+\.\d+\](\[ *[TC]\d+\])? )?/;

const LINES_KEPT = 2000;
const REPORTS_KEPT = 200;
const REPORT_LINES = 400;
/** A message of a WARN() stands between the cut and the line that says WARNING. */
const MESSAGE_LINES = 8;

interface Report extends KernelReport {
  readonly lines: string[];
  complete: boolean;
}

/** Tells `line` of each line as it arrives, but for those that say where a program is. */
export class KernelLog extends EventEmitter<{ line: [string] }> {
  readonly #lines: string[] = [];
  readonly #reports: Report[] = [];
  readonly #decoder = new StringDecoder('utf8');
  #partial = '';
  #place: Place | undefined;
  /** What has come since something was cut here that is not known yet. */
  #cut: string[] | undefined;
  #open: { readonly report: Report; readonly end: RegExp } | undefined;

  push(chunk: Buffer): void {
    const lines = (this.#partial + this.#decoder.write(chunk)).split(/\r*\n/);
    this.#partial = lines.pop() ?? '';
    for (const line of lines) this.#line(line.replace(DECORATION, ''));
  }

  /** The last lines, also one that has not ended yet. */
  tail(count: number): string {
    return [...this.#lines, ...(this.#partial === '' ? [] : [this.#partial])].slice(-count).join('\n');
  }

  /** To be handed to reportsSince(). */
  mark(): number {
    return this.#reports.length;
  }

  /** The reports that began after the mark. After a few hundred, no more are taken down. */
  reportsSince(mark: number): readonly KernelReport[] {
    return this.#reports.slice(mark).map((report) => ({ ...report, lines: [...report.lines] }));
  }

  #line(line: string): void {
    const place = parsePlace(line);
    if (place !== undefined) this.#place = place;
    else this.#said(line);
  }

  #said(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length > LINES_KEPT) this.#lines.splice(0, LINES_KEPT / 2);
    if (this.#open === undefined) this.#begin(line);
    else this.#continue(line, this.#open);
    this.emit('line', line);
  }

  #begin(line: string): void {
    if (CUT_HERE.test(line)) this.#cut = [];
    this.#cut?.push(line);
    const found = KINDS.find(({ start }) => start.test(line));
    if (found !== undefined && this.#reports.length < REPORTS_KEPT) {
      const report = { kind: found.kind, title: line, lines: this.#cut ?? [line], complete: false, place: this.#place };
      this.#reports.push(report);
      this.#open = { report, end: found.end };
      this.#cut = undefined;
    } else if (this.#cut !== undefined && this.#cut.length > MESSAGE_LINES) {
      this.#cut = undefined;
    }
  }

  #continue(line: string, { report, end }: { readonly report: Report; readonly end: RegExp }): void {
    report.lines.push(line);
    report.complete = end.test(line);
    if (report.complete || report.lines.length >= REPORT_LINES) this.#open = undefined;
  }
}
