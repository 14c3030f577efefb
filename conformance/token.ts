/**
 * A replay token: one line that holds a program, the profile and target it was for, and the hash of the specification
 * that judged it. It names commands and arguments, not random seeds, so no change to the generators invalidates it.
 */
import { createHash } from 'node:crypto';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { z } from 'zod';

const Content = z.object({
  program: z.string(),
  profile: z.string(),
  target: z.string(),
  modelHash: z.string(),
});

export type TokenContent = z.infer<typeof Content>;

const PREFIX = 'gmc1.';
/** Far above any real program; keeps a forged token from filling memory. */
const MAX_BYTES = 16 << 20;

export const isToken = (text: string): boolean => text.startsWith(PREFIX);

/** Tells a token that lost or changed a character on its way. */
const checksum = (body: string): string => createHash('sha256').update(body).digest('hex').slice(0, 8);

export function encodeToken(content: TokenContent): string {
  const body = deflateRawSync(JSON.stringify(content), { level: 9 }).toString('base64url');
  return `${PREFIX}${body}.${checksum(body)}`;
}

/** Throws a RangeError that says what is wrong with the token. */
export function decodeToken(token: string): TokenContent {
  if (!isToken(token)) throw new RangeError(`a replay token starts with '${PREFIX}'`);
  try {
    const [body = '', sum] = token.slice(PREFIX.length).split('.');
    if (sum !== checksum(body)) throw new RangeError('checksum');
    const json = inflateRawSync(Buffer.from(body, 'base64url'), { maxOutputLength: MAX_BYTES });
    return Content.parse(JSON.parse(json.toString('utf8')));
  } catch {
    throw new RangeError('the replay token is damaged: copy it whole, from gmc1. to its end');
  }
}
