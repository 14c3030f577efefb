import { parse } from 'shell-quote';

/** What a backslash makes plain, and what stands between two quotation marks. */
const CLOSED = /\\[^]|'[^']*'|"(?:\\[^]|[^"\\])*"/g;

/**
 * A command line as the words of a program and its arguments: quotes and backslashes as in a shell, and nothing else of
 * one. Throws a RangeError.
 */
export function wordsOf(commandLine: string): readonly [string, ...string[]] {
  // The parser reads on as if it were closed.
  if (/['"]/.test(commandLine.replace(CLOSED, '')))
    throw new RangeError(`'${commandLine}' has a quotation mark that is not closed: close it, or put \\ before it`);
  const parts = parse(commandLine, (name) => ({ variable: `$${name}` }));
  const words = parts.map((part) => {
    if (typeof part === 'string') return part;
    const special = (Object.values(part) as string[]).at(-1) ?? '';
    throw new RangeError(
      `'${commandLine}' has ${special} in it, and is not given to a shell: put quotes around it, or write process:sh -c '…'`,
    );
  });
  const [program, ...args] = words;
  if (program === undefined) throw new RangeError('process: wants a program: write process:CMD ARGS');
  return [program, ...args];
}
