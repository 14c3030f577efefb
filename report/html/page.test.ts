import { beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import _ from 'lodash';
import { createHash } from 'node:crypto';
import { parse, type DefaultTreeAdapterMap, type ParserError } from 'parse5';
import { conformingReport, divergingReport, scenarioFailure } from '../../properties/reports.ts';
import type { FailureReport, Report } from '../json.ts';
import { visible } from './html.ts';
import { printHtml } from './page.ts';

type Node = DefaultTreeAdapterMap['node'];
type Element = DefaultTreeAdapterMap['element'];

const childrenOf = (node: Node): readonly Node[] => ('childNodes' in node ? node.childNodes : []);
const elementsOf = (node: Node): readonly Element[] =>
  childrenOf(node).flatMap((child) => ('tagName' in child ? [child, ...elementsOf(child)] : []));
const rawText = (node: Node): string => ('value' in node ? node.value : childrenOf(node).map(rawText).join(''));
/** As it is read: cells stand apart. */
const shownText = (node: Node): string => {
  if ('value' in node) return node.value;
  const text = childrenOf(node).map(shownText).join('');
  return 'tagName' in node && ['td', 'th', 'li'].includes(node.tagName) ? ` ${text} ` : text;
};
const textOf = (node: Node): string => shownText(node).replace(/\s+/g, ' ').trim();
const attribute = ({ attrs }: Element, name: string): string | undefined =>
  attrs.find((each) => each.name === name)?.value;

class Page {
  readonly elements: readonly Element[];
  /** What a strict parser has to say against it. */
  readonly errors: readonly string[];

  constructor(report: Report) {
    const errors: string[] = [];
    const onParseError = ({ code }: ParserError): unknown => errors.push(code);
    this.elements = elementsOf(parse(printHtml(report), { onParseError }));
    this.errors = errors;
  }

  all(tag: string, className?: string): readonly Element[] {
    return this.elements.filter(
      (element) =>
        element.tagName === tag &&
        (className === undefined || (attribute(element, 'class') ?? '').split(' ').includes(className)),
    );
  }

  section(id: string): string | undefined {
    const section = this.elements.find((element) => attribute(element, 'id') === id);
    return section && textOf(section);
  }

  /** Elements and the names of their attributes, in order. */
  get skeleton(): readonly string[] {
    return this.elements.map(({ tagName, attrs }) => [tagName, ...attrs.map(({ name }) => name)].join(' '));
  }
}

let passed: Report;
let unmapped: FailureReport;
let converted: FailureReport;
let failed: Report;
beforeAll(async () => {
  passed = await conformingReport();
  unmapped = await scenarioFailure('punched-page-leaves-the-host');
  converted = await scenarioFailure('conversion-changes-worlds');
  failed = divergingReport(passed, [unmapped, converted]);
});

describe('the page of a run that conforms', () => {
  test('names the verdict, the target, the profile and the seed', () => {
    const page = new Page(passed);
    expect(textOf(page.all('h1')[0] as Element)).toBe('✓ Conforms reference against linux-7.3');
    expect(page.section('subject')).toMatch(/Specification \w+ Version of the kit 1\.2\.3 Run seed 2 Time [\d.]+ s$/);
    expect(page.section('divergences')).toBeUndefined();
  });

  test('lists every rule with its answer, condition, source and how often it decided', () => {
    const page = new Page(passed);
    const rows = page.all('tr').filter((row) => attribute(row, 'data-reach') !== undefined);
    expect(rows).toHaveLength(passed.rules.length);
    const text = rows.map(textOf);
    expect(text).toContainEqual(
      expect.stringMatching(
        /^vm\.create\/bad-descriptor EBADF when dev names no open file fs\/file\.c: fdget\(\) \d+ times?$/,
      ),
    );
    expect(text).toContainEqual(expect.stringMatching(/^attributes\.set\/not-built .* out of reach: the machine has /));
    expect(_.countBy(rows, (row) => attribute(row, 'data-reach'))['missed']).toBe(
      passed.rules.filter(({ hits, outOfReach }) => hits === 0 && outOfReach === undefined).length,
    );
  });

  test('lists invariants, and what was not checked', () => {
    const page = new Page({ ...passed, skipped: [{ capability: 'facts', reason: 'nobody looks' }] });
    expect(page.section('invariants')).toMatch(/gmem\/never-rebinds A gmem file is usable .* ✓ held \d+ times/);
    expect(page.section('unchecked')).toMatch(/facts nobody looks .* Rule Programs \S+: not specified when /);
  });

  test('tells known divergences, and what became of each', () => {
    const entry = {
      id: 'odd',
      rule: 'vm.create/created',
      programs: 3,
      observed: 'EIO',
      reason: 'why',
      source: 'where',
    };
    const note = 'its witness passes';
    const page = new Page({
      ...passed,
      knownDivergences: [
        { ...entry, status: 'reproduced' },
        { ...entry, status: 'stale', note },
      ],
    });
    expect(page.section('known')).toMatch(/odd still so why Rule vm\.create\/created Observed EIO Met by 3 programs/);
    expect(page.section('known')).toMatch(/odd no longer so: the entry is stale why its witness passes/);
  });

  test('says why nothing can be said, and lists the runs where they are several', () => {
    const [run] = passed.runs;
    const reason = 'the target was gone';
    const shard = { index: 2, count: 3 };
    const stuck = run && { ...run, shard, verdict: 'inconclusive' as const, reason, stopped: 'time' as const };
    const runs = _.compact([stuck, stuck && { ...stuck, shard: { ...shard, index: 1 } }]);
    const page = new Page({ ...passed, verdict: 'inconclusive', runs, kernel: { release: '7.3.4', backEnd: 'qemu' } });
    expect(textOf(page.all('header')[0] as Element)).toContain(`Inconclusive: ${reason}`);
    expect(page.section('subject')).toMatch(
      /Kernel 7\.3\.4, qemu .* seed 2, shard 2\/3 inconclusive: the target was gone 30 \d+ [\d.]+ s, stopped: time /,
    );
    expect(page.section('subject')).toContain('Missing: seed 2, shard 3/3');
  });
});

describe('the page of a run that diverges', () => {
  const steps = (report: Report): readonly string[] => new Page(report).all('li', 'step').map(textOf);

  test('has what the target wrote beside its answers', () => {
    const page = new Page(divergingReport(passed, [{ ...unmapped, log: 'first\nlast' }, converted]));
    expect(page.section('divergences')).toMatch(/Beside its answers the target wrote\s?first last/);
    expect(
      page
        .all('h4')
        .map(textOf)
        .filter((title) => title.startsWith('Beside')),
    ).toHaveLength(1);
  });

  test('shows every step of the program, and marks the one at which it parts', () => {
    const page = new Page(divergingReport(passed, [unmapped]));
    expect(page.all('li', 'step').map((step) => attribute(step, 'id'))).toEqual(
      unmapped.steps.slice(0, unmapped.at + 1).map((_step, index) => `d1-${index + 1}`),
    );
    const [row, ...others] = page.all('tr', 'parting');
    expect(others).toEqual([]);
    expect(row && textOf(row)).toContain(unmapped.steps[unmapped.at]?.command);
    const parting = page.all('li', 'parting').map(textOf);
    expect(parting).toEqual([expect.stringContaining('Here expectation and observation part.')]);
  });

  test('shows both machines where they differ, and one where they agree', () => {
    const shown = steps(divergingReport(passed, [converted]));
    const { at } = converted;
    expect(shown[at]).toContain('Specification: guest physical memory of vm0');
    expect(shown[at]).toContain('Target: guest physical memory of vm0');
    expect(shown[at]).toMatch(/stage 2 ≠only here: arena\[0\], shared frame 0 /);
    expect(shown[at - 1]).toContain('The machine behind it (specification and target agree)');
  });

  test('says so where the target does not show its inside', () => {
    const blind = unmapped.steps.map(({ command, ran }) => ({ command, ran: ran && _.omit(ran, 'facts') }));
    const [, second] = steps(divergingReport(passed, [{ ...unmapped, steps: blind }]));
    expect(second).toContain('by the specification; the target does not show its inside');
    expect(second).toContain('+new: file0 of vm0');
  });

  test('shows the specification’s machine too where the target sees only part of its own', () => {
    const partial = unmapped.steps.map(({ command, ran }) => ({
      command,
      ran: ran && { ...ran, facts: _.pick(ran.facts as object, 'resident', 'inodes') },
    }));
    const [, second] = steps(divergingReport(passed, [{ ...unmapped, steps: partial }]));
    expect(second).toMatch(/Specification: pages of file0 .* \+ ?new: file0 of vm0/);
    expect(second).not.toContain('agree');
  });

  test('gives the command that shows it again, and the program, as text to copy', () => {
    const page = new Page(failed);
    const [replay, program] = page.all('pre').map(rawText);
    expect(replay).toBe(`gmem-conformance replay ${unmapped.token} --target reference`);
    const commands = unmapped.steps.map(({ command }) => `${command}\n`).join('');
    expect(program).toBe(`# profile: linux-7.3\n# target: reference\n${commands}`);
  });

  test('names what broke at first, the other program, and that it did not fail again', () => {
    const lines = unmapped.steps.map(({ command }, index) => (index === 1 ? 'other' : command));
    const first = { rule: 'vm.create/created', invariant: 'memory/in-bounds' };
    const page = new Page(divergingReport(passed, [{ ...unmapped, first, twin: lines, reproduced: false }]));
    expect(page.section('d1')).toMatch(/At first vm\.create\/created, memory\/in-bounds is what the program broke/);
    expect(page.section('d1')).toContain('the target is not deterministic');
    expect(page.all('mark').map(textOf)).toEqual(['other']);
  });

  test('shows a program that was not run again', () => {
    const steps = unmapped.steps.map(({ command }) => ({ command }));
    const page = new Page(divergingReport(passed, [{ ...unmapped, steps, reproduced: false }]));
    expect(page.section('d1')).toMatch(/1 vm\.create .* not run/);
  });
});

describe('the file', () => {
  test('loads nothing, and runs only what it names by hash', () => {
    const page = new Page(failed);
    const policy = page.all('meta').map((meta) => attribute(meta, 'content'))[1] ?? '';
    const hash = (element: Element | undefined): string =>
      createHash('sha256')
        .update(rawText(element as Element))
        .digest('base64');
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain(`script-src 'sha256-${hash(page.all('script')[1])}'`);
    expect(policy).toContain(`style-src 'sha256-${hash(page.all('style')[0])}'`);
    const attributes = page.elements.flatMap(({ attrs }) => attrs);
    expect(attributes.filter(({ name }) => name === 'src' || name === 'style' || name.startsWith('on'))).toEqual([]);
    expect(attributes.filter(({ name, value }) => name === 'href' && !value.startsWith('#'))).toEqual([]);
  });

  test('has every id once, and every link leads somewhere', () => {
    const page = new Page(failed);
    const ids = page.elements.flatMap((element) => attribute(element, 'id') ?? []);
    expect(_.uniq(ids)).toEqual(ids);
    const links = page.all('a').map((link) => attribute(link, 'href')?.slice(1));
    expect(_.difference(links, ids)).toEqual([]);
  });

  test('holds the report as JSON', () => {
    const [data] = new Page(failed).all('script');
    expect(JSON.parse(rawText(data as Element))).toEqual(JSON.parse(JSON.stringify(failed)));
  });

  test('is well-formed', () => {
    expect(new Page(passed).errors).toEqual([]);
    expect(new Page(failed).errors).toEqual([]);
  });

  test('is small', () => {
    expect(printHtml(failed).length).toBeLessThan(300 * 1024);
  });
});

describe('text from elsewhere', () => {
  const FIXED = new Set(['schema', 'verdict', 'kind', 'status']);
  /** The report with this behind every text in it that is not from a fixed list. */
  const withText = <T>(value: T, text: string, key = ''): T => {
    if (typeof value === 'string') return (FIXED.has(key) ? value : value + text) as T;
    if (Array.isArray(value)) return value.map((each: unknown) => withText(each, text, key)) as T;
    return _.isPlainObject(value)
      ? (_.mapValues(value as object, (each, name) => withText(each, text, name)) as T)
      : value;
  };
  /** A page with all its parts that is parsed in no time. */
  const small = (failures: readonly FailureReport[]): Report =>
    divergingReport({ ...passed, rules: passed.rules.slice(0, 8) }, failures);
  const hostile = fc
    .array(
      fc.oneof(
        fc.constantFrom(
          '</script>',
          '</style>',
          '<!--',
          '-->',
          ']]>',
          '">',
          "'>",
          '<img src=x onerror=alert(1)>',
          '</pre>',
        ),
        fc.constantFrom('</table>', '</details>', '&lt;', '&#x3c;', '\u2028', '\u202e', '\n', ' x=y', '<svg onload='),
        fc.string({ unit: 'binary' }).map((text) => text.replaceAll('`', '')),
      ),
      { minLength: 1 },
    )
    .map((parts) => parts.join(''));

  test('stays text, wherever it stands', () => {
    const full: Report = {
      ...small([{ ...unmapped, twin: ['line'], first: { rule: 'rule', invariant: 'invariant' }, log: 'log' }]),
      about: 'about',
      kernel: { release: 'release', backEnd: 'backEnd' },
      runs: failed.runs.map((run) => ({ ...run, reason: 'reason' })),
      skipped: [{ capability: 'capability', reason: 'reason' }],
      knownDivergences: [
        {
          id: 'id',
          rule: 'r',
          invariant: 'i',
          status: 'new',
          programs: 1,
          observed: 'o',
          reason: 'r',
          source: 's',
          note: 'n',
        },
      ],
    };
    const { skeleton } = new Page(withText(full, 'x'));
    fc.assert(
      fc.property(hostile, (text) => {
        const page = new Page(withText(full, text));
        expect(page.skeleton).toEqual(skeleton);
        expect(page.errors).toEqual([]);
        expect(rawText(page.all('title')[0] as Element)).toContain(visible(`${failed.profile}${text}`));
      }),
      { numRuns: 15 },
    );
  });

  test('may be facts of any shape', () => {
    const [first] = unmapped.steps;
    const ran = first?.ran;
    const parts = fc.constantFrom(...Object.keys(ran?.facts ?? {}), 'toString', '__proto__');
    const facts = fc.oneof(fc.jsonValue(), fc.dictionary(parts, fc.jsonValue()));
    fc.assert(
      fc.property(facts, facts, (one, other) => {
        const steps = [one, other].map((each) => ({ command: 'c', ran: ran && { ...ran, state: one, facts: each } }));
        expect(new Page(small([{ ...unmapped, steps, at: 1 }])).all('li', 'step')).toHaveLength(2);
      }),
      { numRuns: 15 },
    );
  });
});
