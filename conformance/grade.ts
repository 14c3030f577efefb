import type { Target } from '../adapters/adapter.ts';
import type { Specification } from '../model/core/specification.ts';
import { runCampaign, type CampaignOptions } from './campaign.ts';
import type { Failure } from './failure.ts';

/** What it took to tell a wrong implementation from a right one. */
export interface Grade {
  readonly killed: boolean;
  /** Programs and commands that were run up to the first divergence, or in all. */
  readonly programs: number;
  readonly commands: number;
  /** The shortest program that shows the fault, where it was found. */
  readonly witness?: Failure;
}

/** Runs programs on a target that is known to be wrong until one tells. */
export async function grade(specification: Specification, target: Target, options: CampaignOptions): Promise<Grade> {
  const { verdict, programs, commands, failure } = await runCampaign(specification, target, options);
  return { killed: verdict === 'diverges', programs, commands, ...(failure === undefined ? {} : { witness: failure }) };
}
