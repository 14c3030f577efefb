/** docs/machine-check-designs.md: what five kernels make of a page that is bad, from the specification. */
import { INVARIANTS } from '../model/invariants/index.ts';
import { isAbout } from '../model/invariants/invariant.ts';
import { printOutcome } from '../model/core/outcome.ts';
import { concession, profileById } from '../model/core/profile.ts';
import { brokenAtEnd } from '../properties/designs.ts';
import { observedOf, type Flaw } from '../properties/flaws.ts';
import { answerTo, FLAWS, QUESTIONS, type Question } from '../properties/machine-check-designs.ts';
import { MACHINE_CHECK } from '../properties/support.ts';

const HEAD = `# A page that the VMM has unmapped: who may assume what

In May 2020 a guest kernel was told by a machine check of a bad page, made the page uncacheable in its 1:1 map, and so flushed the page's lines. The VMM had unmapped the
page; the flush came to a second machine check, in the kernel, which panicked. Tony Luck and Borislav Petkov argued about what the guest can know. This page is what the
specification of five kernels comes to ([adr/0011-machine-check.md](adr/0011-machine-check.md)). It is written by \`npm run docs\`;
[properties/machine-check-designs.ts](../properties/machine-check-designs.ts) has the programs. What kernels in QEMU were seen to do is in
[machine-check-on-real-kernels.md](machine-check-on-real-kernels.md).

## What becomes of the guest

Two tasks have a frame of ordinary memory. One of them loads its line 0, which is bad, and is killed for it; the kernel has then to isolate the page. Who is left by that is
asked what comes of the page. A cell says what the command comes to, and who ends when the VMM and the kernel have done what is due; *nobody is left*: the guest has panicked above.
\`bare-metal\` is the kernel of May 2020 without a VMM. Linux 7.3 makes such a page not present there as well.
`;

const ARGUMENT = `
## The answer

- **The VMM may assume nothing of the guest.** A guest does not stay away from a page because it was told: its tasks, its kernel, its page-table walker and, through the VMM, its devices all come back
  (\`task.touch/taken\`, \`kernel.touch/taken\`, \`device.read/taken\`). So the page leaves stage 2 before anybody is told, and each touch gets another machine check before the vCPU runs again (\`poison/answered-by-mce\`); a device is told of an error. A new page in its place would be
  other contents (\`poison/never-remapped\`), a #PF contradicts the guest's page tables, and an instruction that is stepped over has not been done. Neither reboot nor migration ends
  this duty; replacing the memory does (\`poison/carried\`).
- **The VMM may assume that a guest reads machine checks, and not that it survives them.** One that is raised while another is in progress, or while CR4.MCE is clear, is a triple fault (\`vmm.answer/triple-fault\`); a guest that has disabled the
  bank meets the page without end (\`vmm.answer/ignored\`); one of Intel's with several CPUs that has not enabled LMCE waits for all of them, and panics (\`mce_start()\`, \`mce_timed_out()\`): here it has enabled it; the eleventh before a task goes on is a panic (\`kernel.handle/too-many\`).
- **The guest may assume that the whole page is bad where the machine check says so, and nothing else.** "Unmapped" is a word about tables that it does not see. What it does with the page has to be right
  whether the page is there or not. Only one of the five is: \`not-present-whole-page\` changes the entry by way of a decoy address, and touches no line (\`poison/isolate-untouched\`).
- **Seeing a hypervisor is not knowing what it did.** \`guest-check\` survives the isolation because it does none: the 1:1 map shows the page as before, and the kernel's next load of it ends the guest as the clean-up of \`set-uc-in-guest\` does.
  In \`not-present-whole-page\` the same load is an oops, which costs a task.
- **A bit in the machine check is true when it is written.** \`vmm-signals-unmap\` works as long as every VMM sets the bit, and as long as nothing is unmapped behind it. A machine check
  without the bit for a page that is taken a step later ends as \`set-uc-in-guest\` does: \`mce-signal-comes-too-late\` among the [scenarios](../scenarios/README.md).
- **On bare metal the same flush is harmless,** as is one of a page that the VMM has not taken: \`poison/isolate-untouched\` speaks of pages that are taken. The page's good line can be read afterwards, which is what uncacheable is for. A guest has no such line: the VMM took all of the page.
- **A flush is how a kernel gets rid of what caches hide.** A cache may have a good copy of a bad line, and what is stored there can go bad itself (\`hw.cache\`). An uncacheable page without a flush would go on to be read from the cache (\`poison/uncached\`); with one,
  poison is written back as poison, and reported, so that the host can take the page between two flushes of the guest: \`mce-isolation-flushes-poison\` among the scenarios. An entry that is not present needs no flush: nobody reads by it.
- **No isolation closes the window before it.** Between \`memory_failure()\` and \`set_mce_nospec()\` another CPU's kernel may load from the page, and panics in all five.
- **The host may assume of ordinary memory what it may not of gmem.** Whoever consumes poison in a guest_memfd has a SIGBUS without an address sent to his VMM (\`kill_me_now()\`), which ends here, as it cannot know the page. That is a fault of 7.3.4, not a contract: to \`memory_failure()\` what gmem answers counts as a failure, though it has dealt with the page ([machine-check-on-real-kernels.md](machine-check-on-real-kernels.md))
  (\`host.recover/vmm-killed\`); what was found before anybody consumed it comes to an exit with EHWPOISON, which the VMM can answer.
`;

const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [row(head), row(head.map(() => '---')), ...rows.map(row)].join('\n');

/** How a guest ends; without a VMM, the machine. */
const ENDS = {
  panicked: '**panic**',
  'triple-fault': '**triple fault**',
  killed: '**its VMM is killed**',
} as const;

function cell(question: Question, profile: string): string {
  const { outcome, guest } = answerTo(question, profile);
  if (outcome === undefined) return 'nobody is left';
  const short = printOutcome(outcome).replace('BUS_MCEERR_', '');
  return guest === 'running' ? short : `${short} → ${ENDS[guest]}`;
}

const asked = INVARIANTS.filter(
  (each) => each.id.startsWith('poison/') && MACHINE_CHECK.every((id) => isAbout(profileById(id), each)),
);

const isConceded = (profile: string, id: string): boolean => concession(profileById(profile), id) !== undefined;

const whyOf = ({ profile, invariant }: Flaw): string => concession(profileById(profile), invariant)?.why ?? '';

export const machineCheckDesignsMarkdown = (): string =>
  [
    HEAD,
    table(
      ['then', ...MACHINE_CHECK],
      QUESTIONS.map((question) => [question.what, ...MACHINE_CHECK.map((profile) => cell(question, profile))]),
    ),
    ARGUMENT,
    '## Which invariants each keeps\n',
    table(
      ['invariant', ...MACHINE_CHECK],
      asked.map(({ id }) => [
        `\`${id}\``,
        ...MACHINE_CHECK.map((profile) => (isConceded(profile, id) ? '**design flaw**' : 'kept')),
      ]),
    ),
    '\n## Design flaws\n\nEach with the shortest program; its last command breaks the invariant.\n',
    ...FLAWS.map(
      (flaw) =>
        `### ${flaw.profile}: \`${flaw.invariant}\`\n\n${whyOf(flaw)}\n\n\`\`\`\n${flaw.program}\`\`\`\n\n${brokenAtEnd(flaw.invariant, observedOf(flaw)) ?? ''}.\n`,
    ),
  ].join('\n');
