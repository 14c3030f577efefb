import { describe, expect, it, jest } from '@jest/globals';
import type { Target } from '../adapters/adapter.ts';
import { referenceTarget } from '../adapters/reference/reference.ts';
import { UsageError } from './errors.ts';
import { misfitOf, openTarget, type withSubject } from './options.ts';

type WithSubject = typeof withSubject;

/** `withSubject` where every name stands for the target. */
async function withTarget(target: Target, use: (withSubject: WithSubject) => Promise<void>): Promise<void> {
  await jest.isolateModulesAsync(async () => {
    jest.doMock('../adapters/targets.ts', () => ({ targetByName: async () => target }));
    await use((await import('./options.ts')).withSubject);
  });
}

describe('a target on the command line', () => {
  it('is a mistake of the caller where nothing has that name', async () => {
    await expect(openTarget('toaster')).rejects.toThrow(UsageError);
  });

  it.each([
    ['simulator', 'tdx-guest-memfd', /^fits$/],
    ['mutant:first-to-finish-unmaps', 'linux-6.18', /^fits$/],
    ['mutant:first-to-finish-unmaps', 'tdx-guest-memfd', /it fits linux-6\.\d+, .*direct-map-v13/],
    [
      'mutant:drop:gpc.read/inactive',
      'bare-metal',
      /^mutant:drop:gpc\.read\/inactive is another machine than bare-metal/,
    ],
  ])('%s, asked about %s, fits or says what does', (name, profile, expected) => {
    expect(misfitOf(name, profile) ?? 'fits').toMatch(expected);
  });

  it('is closed once, after it was used', async () => {
    const told: string[] = [];
    const target: Target = { ...referenceTarget(), close: async () => void told.push('closed') };
    await withTarget(target, async (using) => {
      const result = await using({}, async (subject) => {
        told.push(`used ${subject.target.name}`);
        return 7;
      });
      expect(result).toBe(7);
    });
    expect(told).toEqual(['used reference', 'closed']);
  });

  it('is given the time that was asked for', async () => {
    await withTarget(referenceTarget(), async (using) => {
      expect(await using({ timeLimit: 7 }, async ({ timeLimitMs }) => timeLimitMs)).toBe(7000);
      expect(await using({}, async ({ timeLimitMs }) => timeLimitMs)).toBe(60_000);
    });
  });

  it('is closed where using it fails, or the profile is wrong', async () => {
    const close = jest.fn(async () => undefined);
    await withTarget({ ...referenceTarget(), close }, async (using) => {
      await expect(using({}, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
      await expect(using({ profile: 'linux-0.1' }, async () => 0)).rejects.toThrow('linux-0.1');
    });
    expect(close).toHaveBeenCalledTimes(2);
  });
});
