/** What a run has come to so far, as plain data: enough for another process to go on from there. */
import { z } from 'zod';

const count = z.int().nonnegative();
const counts = z.record(z.string(), count);

export const Progress = z.strictObject({
  /** Programs that were run, whatever they came to. */
  programs: count,
  commands: count,
  elapsedMs: count,
  /** Commands that ended in an error that the environment may cause at any time. */
  environment: count,
  /** How often each rule decided. */
  rules: counts,
  /** How often each invariant was evaluated, and the parts of the facts that the target has shown. */
  checks: counts,
  shown: z.array(z.string()),
  /** Programs in which the specification took no position, by rule. */
  unmodelled: counts,
  /** Programs that known divergences excuse, by entry. */
  known: counts,
  /** Programs without a verdict; how many of the last programs that were in a row; and why the first was. */
  lost: z.strictObject({ programs: count, inARow: count, reason: z.string().exactOptional() }),
  /** What the last program came to, where the run does not go on behind it. */
  divergence: z
    .strictObject({
      kind: z.literal('diverges'),
      at: count,
      rule: z.string(),
      invariant: z.string().exactOptional(),
      expected: z.string(),
      observed: z.string(),
    })
    .exactOptional(),
});

export type Progress = Readonly<z.infer<typeof Progress>>;
