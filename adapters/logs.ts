/** Recorded logs, of whichever kind each line is. */
import type { Specification } from '../model/core/specification.ts';
import type { LogEntry } from './adapter.ts';
import { Recording } from './process/recorded.ts';
import { guestOfLog } from './trace/announcements.ts';
import { Ftrace } from './trace/ftrace.ts';
import { KernelLog } from './trace/kernel-log.ts';
import { linesOf, type TextLine } from './trace/lines.ts';

export interface LogOptions {
  readonly specification: Specification;
  /** Ranges that the host may keep, of the guest that a kernel's log speaks of. */
  readonly bound: bigint;
}

/** Everything that a log tells, in order, as many entries at a time as a chunk of it has. */
export async function* entriesOf(
  chunks: AsyncIterable<string>,
  { specification, bound }: LogOptions,
): AsyncIterable<readonly LogEntry[]> {
  const readers: Readers = {
    recording: new Recording(specification),
    ftrace: new Ftrace(),
    kernelLog: new KernelLog(),
  };
  let hasGuest = false;
  const ofKernel = (entries: readonly LogEntry[]): readonly LogEntry[] => {
    if (hasGuest || entries.every(({ kind }) => kind !== 'command')) return entries;
    hasGuest = true;
    return [...guestOfLog(bound), ...entries];
  };
  for await (const lines of linesOf(chunks))
    yield lines.flatMap((line) => {
      const recorded = recordedOf(readers, line);
      return recorded ?? ofKernel(readers.ftrace.read(line) ?? readers.kernelLog.read(line));
    });
  yield ofKernel([...readers.ftrace.end(), ...readers.kernelLog.end()]);
}

interface Readers {
  readonly recording: Recording;
  readonly ftrace: Ftrace;
  readonly kernelLog: KernelLog;
}

function recordedOf({ recording }: Readers, { line, text }: TextLine): readonly LogEntry[] | undefined {
  if (text === undefined) return [{ line, kind: 'malformed', why: 'longer than any line that can be read' }];
  return text.startsWith('{') ? [recording.read(line, text)] : undefined;
}
