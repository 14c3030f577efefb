/** Work that never waits keeps timers and signals from coming through, so it pauses now and then. */
import { setImmediate } from 'node:timers/promises';

const EVERY_MS = 50;

let last = performance.now();

/** A pause, where it is time for one. */
export function breathe(): Promise<void> | undefined {
  const now = performance.now();
  if (now - last < EVERY_MS) return undefined;
  last = now;
  return setImmediate();
}
