import { afterEach, beforeEach, expect, it, jest } from '@jest/globals';
import { untilInterrupted } from './interrupt.ts';

const listeners = (): readonly number[] => [process.listenerCount('SIGINT'), process.listenerCount('SIGTERM')];
let before: readonly number[];

beforeEach(() => {
  before = listeners();
  jest.spyOn(process.stderr, 'write').mockReturnValue(true);
});
afterEach(() => void jest.restoreAllMocks());

it('the first signal tells the work, which ends by itself; the next one has its usual effect', async () => {
  const result = await untilInterrupted(async (signal) => {
    expect(signal.aborted).toBe(false);
    process.emit('SIGTERM');
    expect(signal.aborted).toBe(true);
    expect(listeners()).toEqual(before);
    return 'report';
  });
  expect(result).toBe('report');
  expect(process.stderr.write).toHaveBeenCalledWith(expect.stringMatching(/^interrupted: .*next signal ends/));
});

it('work that ends by itself, or fails, leaves nothing behind', async () => {
  expect(await untilInterrupted(async () => 7)).toBe(7);
  await expect(untilInterrupted(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
  expect(listeners()).toEqual(before);
  expect(process.stderr.write).not.toHaveBeenCalled();
});
