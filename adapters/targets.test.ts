import { describe, expect, it } from '@jest/globals';
import { UnavailableError } from './adapter.ts';
import { MUTANTS } from './mutants/index.ts';
import { TARGETS, targetByName } from './targets.ts';

describe('a target', () => {
  it.each(['simulator', 'reference', `mutant:${MUTANTS[0]?.id ?? ''}`])('goes by its name: %s', async (name) => {
    expect((await targetByName(name)).name).toBe(name);
  });

  it.each(['toaster', 'simulator:', 'mutant', 'kvm:', 'process', ''])('is unknown by any other: %j', async (name) => {
    await expect(targetByName(name)).rejects.toThrow(
      new RangeError(`unknown target '${name}'; known are simulator, reference, mutant:ID, kvm, qemu, process:CMD`),
    );
  });

  it('that is no known mutant is unknown, too', async () => {
    await expect(targetByName('mutant:ID')).rejects.toThrow(RangeError);
  });

  it('that cannot be tested from here says why', async () => {
    for (const entry of TARGETS) {
      const reason = entry.unavailable?.();
      if (reason === undefined) continue;
      const error = new UnavailableError(`target '${entry.name}' is not available: ${reason}`);
      await expect(targetByName(entry.name)).rejects.toThrow(error);
    }
  });
});
