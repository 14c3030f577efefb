/** Facts as they cross the pipe: the parts of model/core/facts.ts in JSON, all of them optional. */
import { z } from 'zod';
import type { FactPart, FactParts, Facts as ModelFacts } from '../../model/core/facts.ts';
import { harmless } from './lines.ts';

const label = z.string().regex(/^[a-z][a-z0-9_-]{0,31}$/, { error: 'not a label' });
/** A page, frame or slot number, or how many there are: 64 bits of address have no more pages. */
const count = z
  .int()
  .min(0)
  .max(2 ** 52);
/** JSON has null where the model has undefined. */
const orNull = <T extends z.ZodType>(schema: T) => schema.nullable().transform((value) => value ?? undefined);

/** Invariants hold entries against each other, which takes its time. */
export const MAX_ENTRIES = 10_000;

/** Frames from `start` up to `end`. */
export const RANGE = z.object({ start: count, end: count });

const frames = { frame: count.describe('The first frame'), count: count.describe('So many frames in a row') };

/** In which way a page was touched. */
const touchKind = z.enum(['load', 'store', 'fetch', 'flush', 'walk', 'copyin', 'copy', 'zero', 'isolate']);

/** A page of user space, by its address or by any other number that counts pages in a row. */
const hostPage = count.exactOptional();

const PARTS = {
  vms: z.array(z.object({ vm: label })).describe('Every struct kvm that has not been destroyed.'),
  private: z
    .array(z.object({ vm: label, start: count, end: count }))
    .describe('Guest frames with the attribute PRIVATE, from `start` up to `end`, which is not one of them.'),
  files: z
    .array(z.object({ file: label, vm: label.describe('The VM that the file was created for'), inode: label }))
    .describe('Every guest_memfd file that has not been released.'),
  inodes: z
    .array(z.object({ inode: label, pages: count, noDirectMap: z.boolean().exactOptional() }))
    .describe('Every inode of guest memory. `noDirectMap`: created with NO_DIRECT_MAP.'),
  slots: z
    .array(
      z.object({
        vm: label,
        slot: count.describe('As given to the ioctl: address space in the upper 16 bits'),
        baseGfn: count,
        pages: count,
        gmem: z.boolean().describe('Made with KVM_MEM_GUEST_MEMFD'),
        file: orNull(label).describe('The file that the slot refers to, released or not; null where there is none'),
        firstPage: count,
        hostPage: hostPage.describe('Its host address, in pages; may be left out'),
      }),
    )
    .describe('Every memory slot.'),
  bindings: z
    .array(
      z.object({
        file: label,
        start: count,
        end: count,
        vm: label,
        slot: count,
        live: z.boolean().describe('Whether that VM still has that slot'),
      }),
    )
    .describe('Every entry of the table of bindings of a file: its pages from `start` up to `end` show in that slot.'),
  resident: z
    .array(
      z.object({
        inode: label,
        page: count,
        count,
        frame: count.exactOptional().describe('The first of the frames in a row that hold them'),
        references: count.exactOptional().describe('References to each of those frames'),
      }),
    )
    .describe('`count` pages of an inode, from `page` on, that are in its page cache.'),
  stageTwo: z
    .array(z.object({ vm: label, gfn: count, ...frames, private: z.boolean() }))
    .describe('Entries of stage 2, from guest frame `gfn` on.'),
  user: z
    .array(
      z.object({
        mapping: label,
        page: count.describe('Counted from the start of the mapping'),
        count,
        inode: label,
        inodePage: count,
        frame: count.exactOptional().describe('The first of the frames in a row that are there'),
        hostPage: hostPage.describe('The address of the first entry, in pages; may be left out'),
      }),
    )
    .describe(
      'Entries of a user page table, from page `page` of a mapping on. `inode` and `inodePage`: what the mapping was made to show there.',
    ),
  poisoned: z.array(count).describe('Frames with a memory failure.'),
  free: z.array(z.object(frames)).describe('Frames on the free list.'),
  orphans: z
    .array(z.object({ frame: count, references: count }))
    .describe('Frames that are neither in a page cache nor free, although somebody holds references to them.'),
  firstTouches: z
    .array(z.object({ inode: label, page: count, zero: z.boolean() }))
    .describe(
      'Pages that were shown to a guest or to the host for the first time since the last command; `zero`: they held nothing but zeros.',
    ),
  absent: z.array(z.object(frames)).describe('Frames that the direct map does not show.'),
  unremoved: z
    .array(z.object(frames))
    .describe(
      'Frames of files with NO_DIRECT_MAP that could not leave the direct map, and that nobody has been given since.',
    ),
  shares: z
    .array(
      z.object({
        frame: count,
        sharing: z.int().describe('The number of shares; below zero where there were more unshares'),
        holders: z.array(label).describe('The caches that have a share each'),
      }),
    )
    .describe('Frames whose sharing count is not zero.'),
  staleTlb: z
    .array(z.object({ ...frames, cpu: count }))
    .describe('Frames that the TLB of a CPU shows in the direct map, although the direct map does not.'),
  caches: z
    .array(
      z.object({
        gpc: label,
        vm: label,
        gfn: orNull(count).describe('The guest frame that it is activated for, or null'),
        active: z.boolean(),
        valid: z.boolean().describe('What kvm_gpc_check() says, for an access within the page'),
        frame: orNull(count).describe('The frame that it points at, or null'),
      }),
    )
    .describe('Every gfn_to_pfn_cache that has been set up and whose VM is there.'),
  hvaCaches: z
    .array(
      z.object({
        ghc: label,
        vm: label,
        gfn: count.describe('The guest frame in which its range begins'),
        valid: z
          .boolean()
          .describe(
            'An access goes to the host address that it keeps, unless the frame is private, without another look',
          ),
        hostPage: hostPage.describe('That address, in pages; left out where the cache is not valid'),
      }),
    )
    .describe('Every gfn_to_hva_cache whose VM is there.'),
  shareEvents: z
    .array(z.object({ event: z.enum(['share', 'unshare']), frame: count }))
    .describe('The tracepoints kvm_gmem_share and kvm_gmem_unshare since the last command, in order.'),
  tdPages: z
    .array(
      z.object({
        vm: label,
        gfn: count,
        frame: count,
        key: count.describe('The private key that it is under; 0 where keys have no numbers'),
        state: z.enum(['pending', 'mapped', 'blocked', 'exported']),
      }),
    )
    .describe('Pages that belong to a TD; outside of TDX, pages with something of a guest in them.'),
  lines: z
    .array(z.object({ frame: count, line: count, state: z.enum(['foreign', 'keyed', 'poisoned']) }))
    .describe(
      'Lines that are not as their page should be. `foreign`: in a page of a TD, written under the shared key; `keyed`: in no page of a guest, under a private key still, or, in a cache, to be written back under one.',
    ),
  keys: z
    .array(
      z.object({
        key: count,
        state: z.enum(['free', 'assigned', 'reclaim', 'leaked']),
        vm: orNull(label).describe('Whose it is, or was when it leaked; null where it is free'),
        flushed: z.boolean().describe('No cache holds a line under it'),
      }),
    )
    .describe('Every private key of the machine.'),
  hostMaps: z
    .array(z.object({ vm: label, gfn: count, frame: count, by: z.enum(['user', 'dma']) }))
    .describe('Mappings that show a frame: entries of user page tables that are present, and those of devices.'),
  hostWrites: z
    .array(z.object({ frame: count, line: count, via: z.enum(['user', 'gup', 'direct', 'dma', 'zero']) }))
    .describe(
      'Stores of the host since the last command that reached a line of a page which belongs to a TD and is not exported.',
    ),
  consumptions: z
    .array(
      z.object({
        by: z.enum(['guest', 'kernel']),
        ended: z.enum(['guest', 'machine']),
        recoverable: z.boolean().describe('The core could have gone on'),
      }),
    )
    .describe('Who consumed poison since the last command, and what it ended.'),
  guests: z
    .array(
      z.object({
        vm: label,
        state: z.enum(['running', 'panicked', 'triple-fault', 'killed']),
        disturbed: z
          .boolean()
          .describe(
            'A bad line, a memory failure or a machine check was its own since it was created, or its control registers were written',
          ),
        reboots: count.describe('How often it was rebooted'),
        replaced: count.describe('Reboots with what the host took being replaced'),
      }),
    )
    .describe('Every guest that has not been destroyed, ended or not.'),
  cpus: z
    .array(
      z.object({
        vm: label,
        cpu: count,
        stage: z.enum(['runs', 'host-work', 'vmm', 'machine-check']),
        work: z.enum(['none', 'recover', 'isolate']),
        checks: count.describe('Machine checks since its work was begun'),
      }),
    )
    .describe('CPUs of guests that run.'),
  tasks: z.array(z.object({ vm: label, task: count, alive: z.boolean() })).describe('Tasks of guests that run.'),
  guestPages: z
    .array(
      z.object({
        vm: label,
        gfn: count,
        use: z.enum(['free', 'anon', 'clean', 'dirty', 'kernel', 'table']),
        poisoned: z.boolean(),
        oneToOne: z.enum(['present', 'uncacheable', 'absent']).describe('Its entry in the 1:1 map'),
        shownTo: z.array(count).describe('Tasks whose page tables show it'),
        poisonFor: z.array(count).describe('Tasks whose page tables have a poison entry in its place'),
      }),
    )
    .describe('What the kernels of guests that run know of their frames.'),
  backing: z
    .array(
      z.object({
        vm: label,
        gfn: count,
        frame: orNull(count).describe('Null where no frame backs it any more'),
        taken: z.boolean().describe('The host took it away'),
      }),
    )
    .describe('Every guest frame that is plugged.'),
  cached: z
    .array(z.object({ frame: count, line: count, state: z.enum(['clean', 'dirty', 'poisoned']) }))
    .describe(
      'Lines, of frames that back guest frames, that a cache has: as in memory, stored to since, or gone bad there.',
    ),
  touches: z
    .array(
      z.object({
        vm: label,
        gfn: count,
        line: count,
        by: z.enum(['task', 'kernel', 'device']),
        how: touchKind,
        comesTo: z.enum(['machine-check', 'value', 'fault', 'skipped']),
      }),
    )
    .describe('Touches since the last command of frames that the host took; on bare metal, of bad lines.'),
  isolations: z
    .array(z.object({ vm: label, gfn: count, touched: count.describe('Lines of it that were touched') }))
    .describe('Pages that a kernel isolated, or tried to, since the last command.'),
  endings: z
    .array(
      z.object({
        vm: label,
        task: orNull(count).describe('Null where the guest ended'),
        by: z.enum(['signal', 'oops', 'panic', 'triple-fault', 'vmm']),
        of: orNull(count).describe('The guest frame that was consumed, or null'),
        how: touchKind.nullable().transform((value) => value ?? undefined),
      }),
    )
    .describe('Tasks and guests that came to their end since the last command.'),
  announced: z
    .array(z.object({ guest: label, ranges: z.array(RANGE).max(MAX_ENTRIES) }))
    .describe('The frames that each guest shares, by its own page tables.'),
  records: z
    .array(z.object({ guest: label, ranges: z.array(RANGE).max(MAX_ENTRIES), incomplete: z.boolean() }))
    .describe('The frames that the host has recorded as shared, and the mark that the record is incomplete.'),
  statusWork: z
    .array(
      z.object({
        guest: label,
        units: count.describe('What the VMM allows: ranges, words of a bitmap, or entries that the guest gave'),
        bytes: count.describe('That the host holds for the record'),
        calls: count.describe('Hypercalls of the guest in the last command, and entries of a page-state change'),
        steps: count.describe('Nodes, array elements and words that those visited or wrote'),
      }),
    )
    .describe('What the record of each guest costs the host.'),
  hypercalls: z
    .array(z.object({ guest: label, pending: z.boolean().describe('An exit of it waits for the answer of the VMM') }))
    .describe('Guests that call the host.'),
  keyUsers: z
    .array(
      z.object({
        vm: label,
        key: count,
        owner: orNull(label).describe('The VM that it mirrors, also where that is gone; null where it is no mirror'),
      }),
    )
    .describe('VMs that use a key of SEV.'),
  regions: z
    .array(z.object({ vm: label, start: count, end: count }))
    .describe('Pages of the arena that are registered as a guest’s, from `start` up to `end`.'),
  pins: z.array(z.object({ page: count, count })).describe('Pages of the arena that are pinned, and how often.'),
  stretches: z
    .array(z.object({ vm: label, regions: count.describe('Given back in a row') }))
    .describe(
      'VMs that ended since the last command, and how many of their regions were given back before others could run.',
    ),
  saveAreas: z
    .array(
      z.object({
        vm: label,
        vcpu: count,
        stale: z.boolean().describe('The registers are others than those that were encrypted'),
      }),
    )
    .describe('vCPUs whose save area was encrypted since the last command.'),
  outOfBounds: z
    .array(z.string().max(4096).transform(harmless))
    .describe('Writes or reads outside of an array that the machine made since the last command, in words.'),
} satisfies { readonly [Part in FactPart]: z.ZodType<FactParts[Part]> };

const optional = Object.fromEntries(Object.entries(PARTS).map(([part, schema]) => [part, schema.exactOptional()])) as {
  readonly [Part in FactPart]: z.ZodExactOptional<(typeof PARTS)[Part]>;
};

/** How a value is held against a schema; `where` is its place in the facts. Throws. */
type Check = (schema: z.ZodType, value: unknown, where: string) => unknown;

const Entries = z.array(z.unknown()).max(MAX_ENTRIES, { error: `more than ${MAX_ENTRIES} entries` });

/** The parts that are known, each checked entry by entry. */
export function parseFacts(facts: Readonly<Record<string, unknown>>, check: Check): ModelFacts {
  const read = (part: FactPart): readonly unknown[] => {
    const entries = check(Entries, facts[part], part) as readonly unknown[];
    return entries.map((entry, index) => check(PARTS[part].element, entry, `${part}[${index}]`));
  };
  const known = (Object.keys(PARTS) as FactPart[]).filter((part) => facts[part] !== undefined);
  return Object.fromEntries(known.map((part) => [part, read(part)]));
}

export const Facts = z
  .object(optional)
  .meta({ id: 'facts', description: 'What is true of the machine behind the command' }) satisfies z.ZodType<ModelFacts>;
