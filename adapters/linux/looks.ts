/**
 * What a kernel shows of itself to a process: how large files of guest memory are, which of their pages are in the page
 * cache (cachestat), which pages of a mapping are mapped, and in which frames (/proc/self/pagemap), and what a page holds
 * that was just loaded from. Looking changes nothing: it touches no page that is not mapped already.
 *
 * A file can be looked at while a descriptor of it is open, and as long as it is small. What cannot be looked at is left
 * out, together with its mappings.
 */
import { PAGE_MASK, PAGE_SIZE } from '../../model/core/abi.ts';
import type { Facts, FirstTouch, InodeFact, ResidentFact, UserMappingFact } from '../../model/core/facts.ts';
import type { Label } from '../../model/core/state.ts';
import type { Command } from '../../model/catalogue.ts';
import type { CallResults, Operand } from './calls.ts';
import { copy, type CopySteps } from './guest.ts';
import { address, plus, value, type Lowering } from './lowering.ts';
import type { Reading } from './reading.ts';
import { AT_FDCWD, CACHESTAT, CACHESTAT_RANGE, O_CLOEXEC, PAGEMAP, STAT, WORD } from './uapi.ts';

/** Files and mappings with more pages are not looked at. Programs make few of them. */
const MOST_PAGES = 16n;
const isLookedAt = (pages: bigint): boolean => pages > 0n && pages <= MOST_PAGES;

/** Where in the results of a program facts are to be read: numbers of steps and of outputs. */
export interface Look {
  /** The steps that look, from the first up to the second. */
  readonly steps: readonly [number, number];
  readonly files: readonly FileLook[];
  readonly mappings: readonly MappingLook[];
  readonly loaded: LoadedLook | undefined;
  /** The output that holds the frame that has just failed, if one has. */
  readonly failed?: number;
}

interface FileLook {
  readonly inode: Label;
  readonly stat: number;
  readonly size: number;
  /** A number for each page: not zero where the page cache has it. */
  readonly cached: number;
}

interface MappingLook {
  readonly mapping: Label;
  readonly inode: Label;
  readonly firstPage: number;
  readonly read: number;
  /** An entry of pagemap for each page. */
  readonly entries: number;
}

/** A page that the host has just loaded from. */
interface LoadedLook {
  readonly inode: Label;
  readonly page: number;
  readonly copied: CopySteps;
  readonly content: number;
}

interface Mapping {
  readonly inode: Label;
  readonly firstPage: number;
  readonly place: bigint;
  readonly pages: number;
}

/** Writes, behind every command, the calls that look. */
export class Looking {
  readonly #lowering: Lowering;
  readonly #scratch: Operand;
  readonly #pagemap: Operand;
  /** How many pages each file was asked to have, by the label of its first descriptor. */
  readonly #files = new Map<Label, number>();
  readonly #mappings = new Map<Label, Mapping>();

  /** `scratch` is a file of the kit's own, through which bytes are copied. */
  constructor(lowering: Lowering, scratch: Operand) {
    this.#lowering = lowering;
    this.#scratch = scratch;
    const folder = value(BigInt.asUintN(64, AT_FDCWD));
    this.#pagemap = lowering.result(
      lowering.call('openat', folder, lowering.text('/proc/self/pagemap'), value(O_CLOEXEC)),
    );
  }

  /** To be called when the command has been lowered. */
  after(command: Command, reading: Reading): Look {
    this.#note(command);
    const first = this.#lowering.steps.length;
    const loaded = this.#lookAtLoaded(command, reading);
    const files = [...this.#files].flatMap(([inode, pages]) => {
      const descriptor = this.#lowering.descriptorOf(inode);
      return descriptor === undefined ? [] : [this.#lookAtFile(inode, descriptor, pages)];
    });
    const seen = new Set(files.map(({ inode }) => inode));
    const mappings = [...this.#mappings]
      .filter(([, { inode }]) => seen.has(inode))
      .map(([label, mapping]) => this.#lookAtMapping(label, mapping));
    const failed = reading.kind === 'failure' ? { failed: reading.frame } : {};
    return { steps: [first, this.#lowering.steps.length], files, mappings, loaded, ...failed };
  }

  #note({ name, args }: Command): void {
    if (name === 'gmem.create') {
      const pages = args.size / PAGE_SIZE;
      if (isLookedAt(pages)) this.#files.set(args.file, Number(pages));
    }
    if (name === 'mem.map') {
      const inode = this.#lowering.object(args.fd);
      const place = this.#lowering.placeOf(args.mapping);
      const pages = (args.length + PAGE_MASK) / PAGE_SIZE;
      if (inode !== undefined && this.#files.has(inode) && place !== undefined && isLookedAt(pages))
        this.#mappings.set(args.mapping, {
          inode,
          firstPage: Number(args.offset / PAGE_SIZE),
          place,
          pages: Number(pages),
        });
    }
    if (name === 'mem.unmap') this.#mappings.delete(args.mapping);
  }

  #lookAtFile(inode: Label, descriptor: Operand, pages: number): FileLook {
    const lowering = this.#lowering;
    const buffer = lowering.reserve(STAT.bytes);
    const stat = lowering.call('fstat', descriptor, address(buffer));
    const { offset, bytes } = STAT.fields.st_size;
    // Each answer begins with the number that is wanted, and the next one overwrites the rest of it.
    const cached = lowering.reserve(pages * WORD.bytes + CACHESTAT.bytes);
    for (let page = 0; page < pages; page++) {
      const range = lowering.struct(CACHESTAT_RANGE, { off: BigInt(page) * PAGE_SIZE, len: PAGE_SIZE });
      lowering.call('cachestat', descriptor, address(range), address(cached + page * WORD.bytes), value(0n));
    }
    return {
      inode,
      stat,
      size: lowering.output(buffer + offset, bytes),
      cached: lowering.output(cached, pages * WORD.bytes),
    };
  }

  #lookAtMapping(mapping: Label, { inode, firstPage, place, pages }: Mapping): MappingLook {
    const lowering = this.#lowering;
    const bytes = pages * PAGEMAP.entryBytes;
    const buffer = lowering.reserve(bytes);
    const from = (place / PAGE_SIZE) * BigInt(PAGEMAP.entryBytes);
    const read = lowering.call('pread64', this.#pagemap, address(buffer), value(BigInt(bytes)), value(from));
    return { mapping, inode, firstPage, read, entries: lowering.output(buffer, bytes) };
  }

  /** The page is mapped, for the load went well. */
  #lookAtLoaded({ name, args }: Command, reading: Reading): LoadedLook | undefined {
    if (name !== 'host.load' || reading.kind !== 'host') return undefined;
    const mapping = this.#mappings.get(args.mapping);
    if (mapping === undefined) return undefined;
    const lowering = this.#lowering;
    const buffer = lowering.reserve(Number(PAGE_SIZE));
    const page = args.offset / PAGE_SIZE;
    let copied: CopySteps = { out: 0, into: 0 };
    lowering.skip('unequal', lowering.result(reading.step), BigInt(WORD.bytes), () => {
      const from = plus(value(mapping.place), page * PAGE_SIZE);
      copied = copy(lowering, this.#scratch, from, address(buffer), Number(PAGE_SIZE));
    });
    return {
      inode: mapping.inode,
      page: mapping.firstPage + Number(page),
      copied,
      content: lowering.output(buffer, Number(PAGE_SIZE)),
    };
  }
}

/** What the kernel showed behind every command. */
export function factsOf(looks: readonly Look[], results: CallResults): readonly Facts[] {
  let before: readonly ResidentFact[] = [];
  // Where no memory fails, nothing is known by looking for poison.
  const poisoned: number[] | undefined = looks.some(({ failed }) => failed !== undefined) ? [] : undefined;
  return looks.map(({ files, mappings, loaded, failed }) => {
    const seen = files.filter(({ stat }) => results.results[stat] === 0n);
    const inodes = seen.map((file) => inodeOf(file, results));
    const resident = seen.flatMap((file) => residentOf(file, results));
    const user = mappings
      .filter(({ inode, read }) => inodes.some((each) => each.inode === inode) && (results.results[read] ?? 0n) > 0n)
      .flatMap((mapping) => userOf(mapping, results));
    const firstTouches = loaded === undefined ? [] : touchOf(loaded, before, resident, results);
    before = resident;
    const frame = failed === undefined ? 0n : (wordsOf(results, failed)[0] ?? 0n);
    if (frame !== 0n) poisoned?.push(Number(frame));
    return { inodes, resident, user, firstTouches, ...(poisoned && { poisoned: [...poisoned] }) };
  });
}

function wordsOf({ outputs }: CallResults, output: number): readonly bigint[] {
  const bytes = outputs[output] ?? new Uint8Array();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / WORD.bytes }, (_, index) =>
    view.getBigUint64(index * WORD.bytes, true),
  );
}

const inodeOf = ({ inode, size }: FileLook, results: CallResults): InodeFact => ({
  inode,
  pages: Number((wordsOf(results, size)[0] ?? 0n) / PAGE_SIZE),
});

const residentOf = ({ inode, cached }: FileLook, results: CallResults): readonly ResidentFact[] =>
  wordsOf(results, cached).flatMap((pages, page) => (pages === 0n ? [] : [{ inode, page, count: 1 }]));

const userOf = ({ mapping, inode, firstPage, entries }: MappingLook, results: CallResults): UserMappingFact[] =>
  wordsOf(results, entries).flatMap((entry, page) => {
    if ((entry & PAGEMAP.present) === 0n) return [];
    // A process without privileges is shown no frames.
    const frame = Number(entry & PAGEMAP.frame);
    return [{ mapping, page, count: 1, inode, inodePage: firstPage + page, ...(frame !== 0 && { frame }) }];
  });

/** A page that no page cache had before the load, and one has now. */
function touchOf(
  { inode, page, copied, content }: LoadedLook,
  before: readonly ResidentFact[],
  after: readonly ResidentFact[],
  { results, outputs }: CallResults,
): readonly FirstTouch[] {
  const isIn = (resident: readonly ResidentFact[]): boolean =>
    resident.some((each) => each.inode === inode && each.page === page);
  if (isIn(before) || !isIn(after) || results[copied.into] !== PAGE_SIZE) return [];
  return [{ inode, page, zero: outputs[content]?.every((byte) => byte === 0) === true }];
}
