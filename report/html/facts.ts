/** Facts as they stand in a report: from a target, or from a file, so nothing is taken for granted. */
import { z } from 'zod';
import type { FactPart } from '../../model/core/facts.ts';

const label = z.string();
const whole = z.int().nonnegative();
const range = z.object({ start: whole, end: whole });
const run = { frame: whole, count: whole };

/** Looked at for each part; more is not drawn. */
const MAX_ENTRIES = 256;

const PARTS = {
  vms: z.object({ vm: label }),
  private: z.object({ vm: label, start: whole, end: whole }),
  files: z.object({ file: label, vm: label, inode: label }),
  inodes: z.object({ inode: label, pages: whole, noDirectMap: z.boolean().optional() }),
  slots: z.object({
    vm: label,
    slot: whole,
    baseGfn: whole,
    pages: whole,
    gmem: z.boolean(),
    file: label.optional(),
    firstPage: whole,
  }),
  bindings: z.object({ file: label, start: whole, end: whole, vm: label, slot: whole, live: z.boolean() }),
  resident: z.object({
    inode: label,
    page: whole,
    count: whole,
    frame: whole.optional(),
    references: whole.optional(),
  }),
  stageTwo: z.object({ vm: label, gfn: whole, ...run, private: z.boolean() }),
  user: z.object({
    mapping: label,
    page: whole,
    count: whole,
    inode: label,
    inodePage: whole,
    frame: whole.optional(),
  }),
  poisoned: whole,
  free: z.object(run),
  orphans: z.object({ frame: whole, references: whole }),
  firstTouches: z.object({ inode: label, page: whole, zero: z.boolean() }),
  absent: z.object(run),
  unremoved: z.object(run),
  shares: z.object({ frame: whole, sharing: whole, holders: z.array(label) }),
  staleTlb: z.object({ cpu: whole, ...run }),
  caches: z.object({
    gpc: label,
    vm: label,
    gfn: whole.optional(),
    active: z.boolean(),
    valid: z.boolean(),
    frame: whole.optional(),
  }),
  hvaCaches: z.object({ ghc: label, vm: label, gfn: whole, valid: z.boolean() }),
  shareEvents: z.object({ event: z.enum(['share', 'unshare']), frame: whole }),
  tdPages: z.object({ vm: label, gfn: whole, frame: whole, key: whole, state: z.string() }),
  lines: z.object({ frame: whole, line: whole, state: z.string() }),
  keys: z.object({ key: whole, state: z.string(), vm: label.optional(), flushed: z.boolean() }),
  hostMaps: z.object({ vm: label, gfn: whole, frame: whole, by: z.string() }),
  hostWrites: z.object({ frame: whole, line: whole, via: z.string() }),
  consumptions: z.object({ by: z.string(), ended: z.string(), recoverable: z.boolean() }),
  guests: z.object({ vm: label, state: z.string(), disturbed: z.boolean(), reboots: whole, replaced: whole }),
  cpus: z.object({ vm: label, cpu: whole, stage: z.string(), work: z.string(), checks: whole }),
  tasks: z.object({ vm: label, task: whole, alive: z.boolean() }),
  guestPages: z.object({
    vm: label,
    gfn: whole,
    use: z.string(),
    poisoned: z.boolean(),
    oneToOne: z.string(),
    shownTo: z.array(whole),
    poisonFor: z.array(whole),
  }),
  backing: z.object({ vm: label, gfn: whole, frame: whole.optional(), taken: z.boolean() }),
  cached: z.object({ frame: whole, line: whole, state: z.string() }),
  touches: z.object({ vm: label, gfn: whole, line: whole, by: z.string(), how: z.string(), comesTo: z.string() }),
  isolations: z.object({ vm: label, gfn: whole, touched: whole }),
  endings: z.object({
    vm: label,
    task: whole.optional(),
    by: z.string(),
    of: whole.optional(),
    how: z.string().optional(),
  }),
  announced: z.object({ guest: label, ranges: z.array(range) }),
  records: z.object({ guest: label, ranges: z.array(range), incomplete: z.boolean() }),
  keyUsers: z.object({ vm: label, key: whole, owner: label.optional() }),
  regions: z.object({ vm: label, start: whole, end: whole }),
  pins: z.object({ page: whole, count: whole }),
  stretches: z.object({ vm: label, regions: whole }),
  saveAreas: z.object({ vm: label, vcpu: whole, stale: z.boolean() }),
  hypercalls: z.object({ guest: label, pending: z.boolean() }),
  statusWork: z.object({ guest: label, units: whole, bytes: whole, calls: whole, steps: whole }),
  outOfBounds: z.string(),
} satisfies Record<FactPart, z.ZodType>;

type Part = keyof typeof PARTS;

/** Facts of which any part may be missing. */
export type Seen = { readonly [P in Part]?: readonly z.infer<(typeof PARTS)[P]>[] };

export interface Reading {
  readonly seen: Seen;
  /** Parts that are not what they should be, and so are left out; and parts of which only the beginning is taken. */
  readonly notes: readonly string[];
}

export function readFacts(facts: unknown): Reading {
  const given = z.record(z.string(), z.unknown()).safeParse(facts);
  if (!given.success) return { seen: {}, notes: ['The facts cannot be read.'] };
  const seen: Partial<Record<Part, readonly unknown[]>> = {};
  const notes: string[] = [];
  for (const part of Object.keys(PARTS) as Part[]) {
    const value = given.data[part];
    if (value === undefined) continue;
    const entries = z.array(z.unknown()).safeParse(value);
    const taken = z.array<z.ZodType>(PARTS[part]).safeParse(entries.data?.slice(0, MAX_ENTRIES));
    if (taken.success) seen[part] = taken.data;
    else notes.push(`The part “${part}” of the facts cannot be read.`);
    const left = (entries.data?.length ?? 0) - MAX_ENTRIES;
    if (left > 0) notes.push(`Of the part “${part}” of the facts, ${left} entries are not drawn.`);
  }
  return { seen: seen as Seen, notes };
}
