/** Lines of a log that may be longer than memory. */

/** No line of a log that can be read is longer. */
const LONGEST_LINE = 256 * 1024;

export interface TextLine {
  /** From 1 on. */
  readonly line: number;
  /** Without what ended it; undefined where it is too long to be read. */
  readonly text: string | undefined;
}

/** Lines, as many at a time as a chunk of the log has. `chunks` are text. */
export async function* linesOf(chunks: AsyncIterable<string>): AsyncIterable<readonly TextLine[]> {
  let line = 0;
  let rest = '';
  let isTooLong = false;
  const ended = (text: string): TextLine => {
    line++;
    const whole = isTooLong || text.length > LONGEST_LINE ? undefined : text.replace(/\r$/, '');
    isTooLong = false;
    return { line, text: whole };
  };
  for await (const chunk of chunks) {
    const pieces = (rest + chunk).split('\n');
    rest = pieces.pop() ?? '';
    if (rest.length > LONGEST_LINE) {
      isTooLong = true;
      rest = '';
    }
    if (pieces.length > 0) yield pieces.map(ended);
  }
  if (rest !== '' || isTooLong) yield [ended(rest)];
}
