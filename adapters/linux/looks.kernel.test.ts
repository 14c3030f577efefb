/** What this machine's kernel shows of itself, and that wrong facts are noticed. */
import { afterEach, expect, it } from '@jest/globals';
import { checkProgram } from '../../conformance/check.ts';
import { parseProgram, type Program } from '../../model/core/program.ts';
import type { Facts } from '../../model/core/facts.ts';
import { kernelSuite, WatchedKernel } from '../../properties/kernel.ts';
import type { KernelOptions } from './target.ts';
import { lowerWrongly, LOWERING_MUTANTS } from './mutants.ts';

const PROGRAM = `
  vm.create vm=vm0 dev=kvm type=0
  gmem.create file=file0 vm=vm0 size=0x4000 flags=3 reserved=0
  mem.map mapping=map0 fd=file0 length=0x2000 offset=0x1000 sharing=shared
  mem.map mapping=map1 fd=file0 length=0x4000 offset=0 sharing=shared
  host.load mapping=map0 offset=0
  gmem.fallocate fd=file0 mode=1 offset=0x3000 length=0x1000
  host.store mapping=map1 offset=0x1000 value=7
  host.load mapping=map1 offset=0x3000
  file.truncate fd=file0 size=0x1000
  gmem.fallocate fd=file0 mode=3 offset=0x1000 length=0x1000
  host.load mapping=map1 offset=0x1000
  mem.unmap mapping=map0
  fd.dup as=fd1 fd=file0
  fd.close fd=file0
  fd.close fd=fd1`;

/** The last command fails. */
const REFUSED = `
  vm.create vm=vm0 dev=kvm type=0
  gmem.create file=file0 vm=vm0 size=0x4000 flags=3 reserved=0
  gmem.fallocate fd=file0 mode=1 offset=0x3000 length=0x1000
  file.truncate fd=file0 size=0x1000`;

const pagesOf = ({ resident = [] }: Facts): readonly number[] => resident.map(({ page }) => page);
const shownBy = ({ user = [] }: Facts): readonly string[] =>
  user.map(({ mapping, page, inodePage }) => `${mapping}+${page} ${inodePage}`);

kernelSuite('what a kernel shows', () => {
  const opened: WatchedKernel[] = [];
  const open = async (options?: KernelOptions): Promise<WatchedKernel> => {
    const kernel = await WatchedKernel.open(options);
    opened.push(kernel);
    return kernel;
  };
  const parse = ({ specification }: WatchedKernel, text: string): Program => parseProgram(specification, text).program;
  afterEach(async () => {
    for (const { target } of opened.splice(0)) await target.close();
  });

  it('is sizes, cached pages, mapped pages, and what was loaded first', async () => {
    const kernel = await open();
    const { target, specification } = kernel;
    const observed = await target.execute(parse(kernel, PROGRAM), specification.config.profile);
    const facts = observed.map((each) => each.facts ?? {});
    expect(facts.map(({ inodes }) => inodes?.[0]?.pages)).toEqual([undefined, ...Array<number>(13).fill(4), undefined]);
    expect(facts.map(pagesOf)).toEqual([
      ...[[], [], [], [], [1], [1, 3], [1, 3], [1, 3], [1, 3]],
      ...[[3], [1, 3], [1, 3], [1, 3], [1, 3], []],
    ]);
    expect(facts.map(shownBy)).toEqual([
      ...[[], [], [], [], ['map0+0 1'], ['map0+0 1']],
      ...[
        ['map0+0 1', 'map1+1 1'],
        ['map0+0 1', 'map1+1 1', 'map1+3 3'],
        ['map0+0 1', 'map1+1 1', 'map1+3 3'],
      ],
      ...[['map1+3 3'], ['map1+1 1', 'map1+3 3'], ['map1+1 1', 'map1+3 3'], ['map1+1 1', 'map1+3 3']],
      ...[['map1+1 1', 'map1+3 3'], []],
    ]);
    // What was made resident by other means was not seen fresh.
    expect(facts.map(({ firstTouches }) => firstTouches?.map(({ page, zero }) => [page, zero]))).toEqual(
      facts.map((_each, at) => (at === 4 || at === 10 ? [[1, true]] : [])),
    );
    const frames = facts[7]?.user?.map(({ frame }) => frame) ?? [];
    if (frames[0] === undefined) return;
    expect(frames[0]).toBe(frames[1]);
    expect(frames[0]).not.toBe(frames[2]);
  });

  it('is not looked at where nobody wants to know', async () => {
    const kernel = await open();
    const { target, specification } = kernel;
    const program = parse(kernel, PROGRAM);
    const blind = await target.execute(program, specification.config.profile, { facts: false });
    const seeing = await target.execute(program, specification.config.profile, { facts: true });
    expect(blind).toEqual(seeing.map(({ outcome }) => ({ outcome })));
  });

  it.each([
    ['cache-of-the-next-page', 'memory/no-stale-mapping', PROGRAM],
    ['content-of-another-page', 'memory/fresh-is-zero', PROGRAM],
    ['cache-forgotten-by-truncate', 'errors/no-effect', REFUSED],
  ])('makes %s break %s', async (id, invariant, text) => {
    const mutant = LOWERING_MUTANTS.find((each) => each.id === id);
    if (mutant === undefined) throw new Error(`no mutant ${id}`);
    const wrong = await open({ lower: lowerWrongly(mutant) });
    const { specification, target } = wrong;
    const program = parse(wrong, text);
    expect(await checkProgram({ specification, target }, program)).toMatchObject({ kind: 'diverges', invariant });
    expect(await checkProgram({ specification, target, facts: false }, program)).toMatchObject({ kind: 'conforms' });
  });
});
