/** docs/direct-map-designs.md: what each design for direct-map removal answers, from runs of the simulator. */
import _ from 'lodash';
import { profileById } from '../model/core/profile.ts';
import { INVARIANTS, isAbout } from '../model/invariants/index.ts';
import {
  answerOf,
  brokenAtEnd,
  DESIGN_FLAWS,
  DESIGN_QUESTIONS,
  DESIGNS,
  flawOf,
  observedByDesign,
  takesInjection,
  type DesignQuestion,
} from '../properties/designs.ts';

const HEAD = `# Four designs for direct-map removal

Guest memory that is not in the kernel's direct map cannot be read there by speculation. RFC v2 of "Unmapping guest_memfd
from Direct Map" (September 2024) asks whether its sharing count is the right way for KVM to reach such memory all the same.
This page is what the simulator comes to, which under each profile does what that design does
([adr/0009-direct-map.md](adr/0009-direct-map.md)). It is written by \`npm run docs\`; [properties/designs.ts](../properties/designs.ts)
has the programs.

RFC v2 is simulated as its messages have it: with eight mistakes of the posted code mended, and with one mechanism that
it lacks, by which caches let go when their slot is deleted. The other three are as their messages have them; v13, as its review asks.

*Not settled*: before the question can be asked, the program does something on which the proposal takes no position. †: only an
injected fault leads there, an entry that cannot be split for want of memory or one that cannot be restored. The programs of
the questions share one setting, so that they can be compared, and are not the shortest; those are in the section on invariants.
`;

const TAIL = `## The answer

The count of RFC v2 is the only one of the four that keeps every invariant of the specification; but not as it was posted. Eight mistakes
of the posted code are mended here, and caches let go when a slot is deleted, which no patch of the series does: a cache whose slot
is gone would hear nothing more of its page. What the count costs is what the cover letter says: every holder must hear of every
invalidation.

v12 and v13 have no such duty, because KVM holds nothing: it goes through the host address of the slot, where GUP refuses the
pages. What they leave open is what KVM sees where the host address is not what the guest sees. Each is charged with two invariants.
One is not their doing: a change of attributes does not invalidate a pfncache in Linux 7.3 either, and neither series sets out to mend that.
The other takes a restore that fails, which only an injected fault brings about here, and which their messages say
cannot happen. Of RFC v1, too, what follows from an entry that cannot be split takes injection; the TLB that is not flushed and the caches that do not hear of freed pages and of slots that go do not.

\`gmem-conformance run --profile direct-map-rfc-v1\` (or v12, v13) finds such a program by itself, and shrinks it.
`;

/** Stands where only an injected fault leads. */
const markOf = (program: string): string => (takesInjection(program) ? '†' : '');

const cell = (question: DesignQuestion, profile: string): string => {
  const { answer, seen } = answerOf(question, profile);
  return answer === 'no' ? `**no**${markOf(question.program)} (${seen})` : `${answer}${markOf(question.program)}`;
};

const KEEPS = `
## Which invariants each keeps

Asked of random programs on the simulator ([mutants-designs.test.ts](../properties/mutants-designs.test.ts)), which are shrunk to the shortest that
breaks the invariant. A dash is where a design does not claim it. All four keep the invariants that are not in the table.
`;

const GROUPS = /^(direct-map|pfncache)\/|^memory\/(free-is-present|no-stale-mapping)$/;

const kept = (invariant: string, profile: string): string => {
  const sentence = INVARIANTS.find(({ id }) => id === invariant);
  if (sentence === undefined || !isAbout(profileById(profile), sentence)) return '—';
  const flaw = flawOf(profile, invariant);
  if (flaw === undefined) return 'kept';
  return `**broken**${markOf(flaw.program)}, ${flaw.program.trim().split('\n').length} commands`;
};

const invariantTable = (): readonly string[] => [
  `| invariant | ${DESIGNS.join(' | ')} |`,
  `| --- |${' --- |'.repeat(DESIGNS.length)}`,
  ...INVARIANTS.filter(({ id }) => GROUPS.test(id)).map(
    ({ id }) => `| \`${id}\` | ${DESIGNS.map((profile) => kept(id, profile)).join(' | ')} |`,
  ),
];

/** Profiles that one program shows to break the invariants of one reason stand together. */
const flaws = (): readonly string[] =>
  Object.values(_.groupBy(DESIGN_FLAWS, ({ program }) => program)).map((same) => {
    const [first] = same as [(typeof DESIGN_FLAWS)[number]];
    const profiles = _.uniq(same.map(({ profile }) => profile)).join(', ');
    const invariants = _.uniq(same.map(({ invariant }) => invariant));
    const seen = invariants.map((id) => brokenAtEnd(id, observedByDesign(first))).join('; ');
    return `### ${profiles}: ${invariants.map((id) => `\`${id}\``).join(', ')}\n\n${first.why}\n\n\`\`\`\n${first.program}\`\`\`\n\n${seen}.\n`;
  });

export const designsMarkdown = (): string =>
  [
    HEAD,
    `| question | ${DESIGNS.join(' | ')} |`,
    `| --- |${' --- |'.repeat(DESIGNS.length)}`,
    ...DESIGN_QUESTIONS.map(
      (each) => `| ${each.question} | ${DESIGNS.map((profile) => cell(each, profile)).join(' | ')} |`,
    ),
    '',
    ...DESIGN_QUESTIONS.map(({ question, why, program }) => `## ${question}\n\n${why}\n\n\`\`\`\n${program}\`\`\`\n`),
    KEEPS,
    ...invariantTable(),
    '',
    ...flaws(),
    TAIL,
  ].join('\n');
