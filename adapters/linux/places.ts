/**
 * Where in a program a kernel is: programs may write it into the kernel's log while they run, so that what the kernel
 * reports meanwhile stands behind the command during which it did.
 */

/** The index of a command; what a program does before its first command, and after its last one. */
export type Place = number | 'before' | 'after';

/** A line of the log. */
export const printPlace = (place: Place): string =>
  `gmem: ${typeof place === 'number' ? `command ${place}` : `${place} the commands`}`;

const LINE = /^gmem: (?:command (?<command>\d+)|(?<side>before|after) the commands)$/;

/** What a line of the log says of that, if it does. */
export function parsePlace(line: string): Place | undefined {
  const { command, side } = LINE.exec(line)?.groups ?? {};
  if (side === 'before' || side === 'after') return side;
  return command === undefined ? undefined : Number(command);
}
