import { describe, expect, it } from '@jest/globals';
import { scenarioByName } from '../scenarios/library.ts';
import { printScenarioList } from './scenario.ts';

describe('the list of scenarios', () => {
  it.each([0, 40, 80, 200])('cuts no word in a terminal of %i columns', (width) => {
    const list = printScenarioList(
      ['prefault-follows-attribute', 'bug-attributes-lost-on-enomem'].map(scenarioByName),
      width,
    );
    expect(list).not.toContain('…');
    expect(list).toMatch(/ two-dimensional-paging$/m);
    expect(list).toMatch(/ memory-attributes$/m);
  });
});
