/** Error numbers by name, as a program on Linux sees them. Source: include/uapi/asm-generic/errno{-base,}.h. */
import { constants } from 'node:os';
import type { Errno } from '../../model/core/outcome.ts';

/** Numbers that Node does not know. */
const OTHERS: Readonly<Record<string, number>> = { EHWPOISON: 133, ENOTSUPP: 524 };

const names = new Map<number, string>();
// The first name of a number wins: EAGAIN, not EWOULDBLOCK.
for (const [name, number] of [...Object.entries(constants.errno), ...Object.entries(OTHERS)])
  if (!names.has(number) && name !== 'ENOTSUP') names.set(number, name);

/** The name of an error number; one that the specification never speaks of is told all the same. */
export const errnoName = (number: number): Errno => (names.get(number) ?? `errno ${number}`) as Errno;
