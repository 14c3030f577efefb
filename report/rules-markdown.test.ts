import { describe, expect, test } from '@jest/globals';
import { CATALOGUE } from '../model/catalogue.ts';
import { FULL_MACHINE, PROFILES } from '../model/core/profile.ts';
import { Specification } from '../model/core/specification.ts';
import { INVARIANTS } from '../model/invariants/index.ts';
import { rulesMarkdown } from './rules-markdown.ts';

const text = rulesMarkdown();

describe('the rules as a document', () => {
  test('hold every rule of every profile, and every invariant', () => {
    for (const profile of PROFILES)
      for (const { id } of new Specification({ profile, machine: FULL_MACHINE }, CATALOGUE).rules())
        expect(text).toContain(`| \`${id}\` |`);
    for (const { id, sentence } of INVARIANTS) expect(text).toContain(`| \`${id}\` | ${sentence} |`);
  });

  test('say where the variants of a rule hold', () => {
    expect(text).toMatch(/\| `slot\.set\/\S+` \|.*\| `EEXIST` \| since 7\.2, before 7\.3\.4 \|/);
    expect(text).toContain('Holds: with gmem-link.');
  });

  test('have as many cells in every row of a table as in its heading', () => {
    for (const table of text.split(/\n\n+/).filter((part) => part.startsWith('|'))) {
      const cells = table
        .split('\n')
        .filter((line) => line.startsWith('|'))
        .map((line) => line.split(/(?<!\\)\|/).length);
      expect(new Set(cells).size).toBe(1);
    }
  });
});
