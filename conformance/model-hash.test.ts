import { describe, expect, it, jest } from '@jest/globals';
import { CATALOGUE } from '../model/catalogue.ts';
import type { AnyTransition } from '../model/core/specification.ts';
import { modelHash } from './model-hash.ts';
import { SECRECY } from './secret.ts';

/** The hash that a specification with these commands would have. */
async function hashWith(change: (transition: AnyTransition) => AnyTransition): Promise<string> {
  let hash = '';
  await jest.isolateModulesAsync(async () => {
    jest.doMock('../model/catalogue.ts', () => ({ CATALOGUE: CATALOGUE.map(change) }));
    hash = (await import('./model-hash.ts')).modelHash();
  });
  return hash;
}

const onSlots =
  (change: (transition: AnyTransition) => Partial<AnyTransition>) =>
  (transition: AnyTransition): AnyTransition =>
    transition.name === 'slot.set' ? { ...transition, ...change(transition) } : transition;

describe('the hash of the specification', () => {
  it('is twelve hex digits, and the same every time', async () => {
    expect(modelHash()).toMatch(/^[0-9a-f]{12}$/);
    expect(modelHash()).toBe(modelHash());
    expect(await hashWith((transition) => transition)).toBe(modelHash());
  });

  it.each<[string, (transition: AnyTransition) => AnyTransition]>([
    ['a row goes', onSlots(({ guards }) => ({ guards: guards.slice(1) }))],
    ['a row moves', onSlots(({ guards }) => ({ guards: guards.toReversed() }))],
    ['an answer changes', onSlots(({ guards }) => ({ guards: guards.map((row) => ({ ...row, errno: 'EIO' })) }))],
    ['a condition changes', onSlots(({ guards }) => ({ guards: guards.map((row) => ({ ...row, when: 'never' })) }))],
    [
      'a row leaves a profile',
      onSlots(({ guards }) => ({ guards: guards.map((row) => ({ ...row, only: { before: '7.0' } })) })),
    ],
    ['an acceptance goes', onSlots(({ accepts }) => ({ accepts: accepts.slice(1) }))],
    [
      'a predicate changes',
      onSlots(({ guards }) => ({
        guards: guards.map((row) => (row.id === 'slot.set/gpa-overlap' ? { ...row, violated: () => false } : row)),
      })),
    ],
    [
      'a command does something else',
      onSlots(({ accepts }) => ({
        accepts: accepts.map((each) => ({ ...each, accept: (_args, state) => ({ state }) })),
      })),
    ],
    ['another error is allowed', onSlots(({ mayAlso }) => ({ mayAlso: [...mayAlso, 'EINTR'] }))],
    ['a command may stop half-way', onSlots(() => ({ mayLeavePrefix: true }))],
  ])('changes where %s', async (_what, change) => {
    expect(await hashWith(change)).not.toBe(modelHash());
  });

  it('changes where the sentence about secrets does', async () => {
    let hash = '';
    await jest.isolateModulesAsync(async () => {
      jest.doMock('./secret.ts', () => ({ SECRECY: { ...SECRECY, sentence: 'Secrets are told.' } }));
      hash = (await import('./model-hash.ts')).modelHash();
    });
    expect(hash).not.toBe(modelHash());
  });
});
