import { describe, expect, it } from '@jest/globals';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { conformanceSuite } from './suite.ts';

// Targets that lack much, or are wrong, are tested in a project of their own: scripts/npm.package.test.ts.
const opened: string[] = [];
conformanceSuite({
  name: 'a target that takes time to open',
  declares: simulatorTarget(),
  target: () => Promise.resolve({ ...simulatorTarget(), close: async () => void opened.push('closed') }),
  runs: 300,
});

conformanceSuite({
  name: 'a target that has a part of the commands',
  target: () => ({ ...simulatorTarget(), commands: new Set(['vm.create', 'gmem.create', 'file.stat', 'fd.close']) }),
  runs: 150,
  unobservable: ['memory/private-is-secret'],
});

describe('the suite', () => {
  it('closes what it has opened', () => {
    expect(opened).toEqual(['closed']);
  });

  it.each([
    [{ commands: ['vm.destroy'] }, "unknown command 'vm.destroy'; known are vm.create, "],
    [{ profile: 'linux-1.0' }, "unknown profile 'linux-1.0'; known are linux-6.18, "],
    [{ unobservable: ['gmem/none'] }, "unknown invariant 'gmem/none'; known are gmem/never-rebinds, "],
  ])('refuses %j before it registers anything', async (options, message) => {
    expect(() => conformanceSuite({ target: () => referenceTarget(), ...options })).toThrow(message);
    const later = conformanceSuite({ target: () => Promise.resolve(referenceTarget()), ...options });
    await expect(later).rejects.toThrow(message);
  });

  it('refuses a file of known divergences that cannot be used, with its name', () => {
    expect(() => conformanceSuite({ target: () => referenceTarget(), divergences: 'package.json' })).toThrow(
      'package.json: write a list of entries',
    );
  });
});
