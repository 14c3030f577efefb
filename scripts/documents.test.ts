import { describe, expect, test } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DOCUMENTS } from './documents.ts';

/** JSON may be laid out in any way. */
const content = (path: string, text: string): unknown => (path.endsWith('.json') ? JSON.parse(text) : text);

describe('generated documents', () => {
  test.each(DOCUMENTS)('$path is what `npm run docs` writes', ({ path, text }) => {
    const written = readFileSync(join(__dirname, '..', path), 'utf8');
    expect(content(path, written)).toEqual(content(path, text()));
  });
});
