/**
 * The kernel's log with a line for each call, as in "Add AMD SEV specific Hypercall3" (December 2020):
 *
 *     [   56.146336] page_enc_status_hc invoked, gpa = 1f018000, npages  = 1, enc = 1
 *
 * also as mails have it: quoted, folded, in quoted-printable, and cut (`....`, `<snip>`).
 */
import type { LogEntry } from '../adapter.ts';
import { announcement, attributesOf } from './announcements.ts';
import type { TextLine } from './lines.ts';

const NAME = 'page_enc_status_hc';
const CALL = new RegExp(
  `${NAME} invoked,\\s*gpa\\s*=\\s*(?:0x)?([0-9a-f]{1,16}),\\s*npages\\s*=\\s*(0x[0-9a-f]{1,16}|[0-9]{1,20}),\\s*enc\\s*=\\s*([0-9]+)\\s*$`,
  'i',
);
const TIME = /\[\s*([0-9]+\.[0-9]+)\]/;
const QUOTES = /^(?:\s?>)+ ?/;
const GAP = /^\s*(?:\.{3,}|<snip>|\[\.{3}\]|…)\s*$/i;

/** A mail folds a line once, or twice where it was quoted often. */
const FOLDS = 2;

const WANTED = `write \`${NAME} invoked, gpa = <hex>, npages = <number>, enc = <0 or 1>\``;
const U64_MAX = (1n << 64n) - 1n;

/** A call that is not whole yet. */
interface Begun {
  readonly line: number;
  readonly text: string;
  readonly folds: number;
}

export class KernelLog {
  #begun: Begun | undefined;

  /** What the line tells, or several where it ends what an earlier one began. */
  read({ line, text = '' }: TextLine): readonly LogEntry[] {
    const plain = text.replace(QUOTES, '');
    if (this.#begun !== undefined) return this.#goOn(this.#begun, { line, text: plain });
    if (GAP.test(plain)) return [{ line, kind: 'gap' }];
    return plain.includes(NAME) ? this.#begin({ line, text: plain, folds: 0 }) : [];
  }

  /** What is left when the log is over. */
  end(): readonly LogEntry[] {
    const begun = this.#begun;
    this.#begun = undefined;
    return begun === undefined ? [] : [malformed(begun)];
  }

  #begin(begun: Begun): readonly LogEntry[] {
    const call = CALL.exec(begun.text.replaceAll('=3D', '='));
    if (call !== null) return [entryOf(begun, call)];
    if (begun.folds === FOLDS || /\benc\s*=\s*\S/.test(begun.text.replaceAll('=3D', '='))) return [malformed(begun)];
    this.#begun = begun;
    return [];
  }

  #goOn({ line, text, folds }: Begun, next: { readonly line: number; readonly text: string }): readonly LogEntry[] {
    this.#begun = undefined;
    if (next.text.includes(NAME) || GAP.test(next.text)) return [malformed({ line, text, folds }), ...this.read(next)];
    return this.#begin({
      line,
      text: joined(text, next.text),
      folds: folds + 1,
    });
  }
}

/** In quoted-printable a line that goes on ends with `=`, which is no part of it. */
const joined = (text: string, next: string): string =>
  text.endsWith('=') && text.includes('=3D') ? text.slice(0, -1) + next : `${text} ${next}`;

const malformed = ({ line }: Begun): LogEntry => ({ line, kind: 'malformed', why: `not a call: ${WANTED}` });

function entryOf({ line, text }: Begun, [, gpa = '', pages = '', enc = '']: RegExpExecArray): LogEntry {
  if (enc !== '0' && enc !== '1') return { line, kind: 'malformed', why: `enc is ${enc}: ${WANTED}` };
  if (BigInt(pages) > U64_MAX) return { line, kind: 'malformed', why: `npages is no number of 64 bits: ${WANTED}` };
  const seconds = TIME.exec(text)?.[1];
  return {
    line,
    kind: 'command',
    command: announcement(BigInt(`0x${gpa}`), BigInt(pages), attributesOf(enc === '1')),
    ...(seconds === undefined ? {} : { seconds: Number(seconds) }),
  };
}
