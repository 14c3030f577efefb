import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { deflateRawSync } from 'node:zlib';
import { decodeToken, encodeToken, isToken } from './token.ts';

const CONTENT = { program: 'fd.close fd=none\n', profile: 'linux-7.3', target: 'simulator', modelHash: '0123456789ab' };
const TOKEN = encodeToken(CONTENT);

const packed = (json: string): string => `gmc1.${deflateRawSync(json).toString('base64url')}`;

describe('a replay token', () => {
  it('gives back what was put in, whatever that is', () => {
    const text = fc.string({ unit: 'binary' });
    fc.assert(
      fc.property(fc.record({ program: text, profile: text, target: text, modelHash: text }), (content) => {
        expect(decodeToken(encodeToken(content))).toEqual(content);
      }),
    );
  });

  it('is refused when any one character is another', () => {
    for (let at = 5; at < TOKEN.length; at++) {
      const other = TOKEN[at] === 'a' ? 'b' : 'a';
      expect(() => decodeToken(TOKEN.slice(0, at) + other + TOKEN.slice(at + 1))).toThrow('damaged');
    }
  });

  it('is one word that can be pasted into a shell', () => {
    expect(TOKEN).toMatch(/^gmc1\.[A-Za-z0-9_-]+\.[0-9a-f]{8}$/);
    expect(isToken(TOKEN)).toBe(true);
    expect(isToken('scenarios/file-pins-vm.gmem')).toBe(false);
  });

  it('is refused where its beginning is missing', () => {
    expect(() => decodeToken(TOKEN.slice(1))).toThrow("a replay token starts with 'gmc1.'");
  });

  it('is refused where its end is missing', () => {
    for (let length = 5; length < TOKEN.length - 1; length++)
      expect(() => decodeToken(TOKEN.slice(0, length))).toThrow('the replay token is damaged: copy it whole');
  });

  it.each([
    ['nothing', 'gmc1.'],
    ['noise', 'gmc1.AAAAAAAAAAAA'],
    ['no JSON', packed('{')],
    ['a field too few', packed('{"program":"","profile":"","target":""}')],
    ['a field of another type', packed('{"program":1,"profile":"","target":"","modelHash":""}')],
  ])('is refused where it holds %s', (_what, token) => {
    expect(() => decodeToken(token)).toThrow('the replay token is damaged');
  });

  it('is refused where it would fill the memory', () => {
    const bomb = packed(JSON.stringify({ ...CONTENT, program: ' '.repeat(17 << 20) }));
    expect(() => decodeToken(bomb)).toThrow('the replay token is damaged');
  });
});
