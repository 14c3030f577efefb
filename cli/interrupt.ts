import { warn } from './output.ts';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/** The first SIGINT or SIGTERM ends the work, which still reports; the next one ends the process. */
export async function untilInterrupted<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const interruption = new AbortController();
  const interrupt = (): void => {
    for (const each of SIGNALS) process.off(each, interrupt);
    warn('interrupted: what was found until now follows; the next signal ends the process at once');
    interruption.abort();
  };
  for (const each of SIGNALS) process.on(each, interrupt);
  try {
    return await work(interruption.signal);
  } finally {
    for (const each of SIGNALS) process.off(each, interrupt);
  }
}
