import { parse } from 'shell-quote';

/**
 * A command line as the words of a program and its arguments: quotes and backslashes as in a shell, and nothing else of
 * one. Throws a RangeError.
 */
export function wordsOf(commandLine: string): readonly [string, ...string[]] {
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
