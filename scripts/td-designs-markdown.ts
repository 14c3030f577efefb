/** docs/tdx-designs.md: what five designs make of every host access to private memory, from the specification. */
import { INVARIANTS, isAbout } from '../model/invariants/index.ts';
import { concession, profileById } from '../model/core/profile.ts';
import { brokenAtEnd } from '../properties/designs.ts';
import { observedOf, type Flaw } from '../properties/flaws.ts';
import { TD } from '../properties/support.ts';
import { FLAWS, HOST_ACCESSES, paidFor, privateGuest, type HostAccess } from '../properties/td-designs.ts';

const HEAD = `# Five designs for private memory

What does a host access to private memory do? In 2021 David Hildenbrand, Kirill Shutemov and Dave Hansen argued about that: the poisoned-page
RFC for TDX, user mappings of only what is shared, SEV's mismatched mappings, s390's export. Linux 7.3 came to a fourth answer for TDX. This page is
what the specification of the five comes to ([adr/0010-tdx.md](adr/0010-tdx.md)). It is written by \`npm run docs\`;
[properties/td-designs.ts](../properties/td-designs.ts) has the programs.

## Every access of the host to a private frame

Frame 0 is private, and the guest has 0x11 in its line 0. Where a device makes the access, it was given the page while that was shared; in
\`share-explicitly\` the VMM had mapped it, and no device has it, because a page that one has cannot become private there. A cell says what the
access comes to by the specification, against which the simulator is held ([td.property.test.ts](../properties/td.property.test.ts)); behind the arrow, what the guest's next load of the line comes to, where that is not 0x11. Where the core that
consumes poison cannot go on, *the guest ends* is *the machine shuts down*.
`;

const ARGUMENT = `
## What this settles

- **"QEMU would write to such memory, and crash the kernel?"** Not by its mapping or a system call, in any of the three designs for TDX: the RFC answers
  SIGBUS and EFAULT, \`share-explicitly\` too, and in \`tdx-guest-memfd\` what is at the host address is other memory. The RFC leaves one
  way: a device keeps a page that it pinned while it was shared, and a page that it writes then takes the guest down, or the machine.
- **Why have a mapping at all?** The two designs without one keep \`td/not-mapped-by-host\` and \`td/no-user-write\` without
  having to find and remove anything but what user space mapped itself. \`tdx-guest-memfd\` pays with memory: a frame that is converted has two pages.
- **None of the designs for TDX keeps the kernel out.** \`td/no-host-write\` is conceded by all three: the page stays in the direct map. What keeps it there is that the
  kernel has no reason to write; [direct-map-designs.md](direct-map-designs.md) compares what would take it out.
- **SEV's two mappings are not coherent.** A store of the host is not seen by the guest until it has left the cache, and a load of the host is ciphertext or
  an old copy. Nobody is ended by that, and nobody is told.
- **s390 needs none of this.** The host may touch any page, gets ciphertext, and may swap and migrate it. What it costs is that the host can
  spoil a page for good: the guest's next access ends the VMM's thread with SIGSEGV.
- **On x86 private memory is pinned.** Migration and swap are refused in every profile but \`s390-pv\`; what moves in \`tdx-guest-memfd\` is the shared page.
`;

const cell = (access: HostAccess, profile: string): string => {
  const { host, guest, onStoppedCore } = paidFor(access, profile);
  if (guest === 'ok 0x11') return host;
  const short = guest.replace('machine check, ends the guest', '**the guest ends**');
  return `${host} → ${onStoppedCore === 'shutdown' ? '**the guest ends**' : short}`;
};

const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [row(head), row(head.map(() => '---')), ...rows.map(row)].join('\n');

/** Those that at least one of the profiles concedes. */
const conceded = INVARIANTS.filter(({ id }) => FLAWS.some(({ invariant }) => invariant === id));
/** Those that all of them keep, of what is only said of TDs. */
const kept = INVARIANTS.filter(
  (each) => each.only !== undefined && TD.every((id) => isAbout(profileById(id), each)) && !conceded.includes(each),
);

const whyOf = ({ profile, invariant }: Flaw): string => concession(profileById(profile), invariant)?.why ?? '';

const isConceded = (profile: string, id: string): boolean => concession(profileById(profile), id) !== undefined;

export const tdDesignsMarkdown = (): string =>
  [
    HEAD,
    table(
      ['access', ...TD],
      HOST_ACCESSES.map((access) => [access.what, ...TD.map((profile) => cell(access, profile))]),
    ),
    `\n## Which invariants each keeps\n\nAll keep ${kept.map(({ id }) => `\`${id}\``).join(' and ')}.\n`,
    table(
      ['invariant', ...TD],
      conceded.map(({ id }) => [
        `\`${id}\``,
        ...TD.map((profile) => (isConceded(profile, id) ? '**design flaw**' : 'kept')),
      ]),
    ),
    ARGUMENT,
    '## Design flaws\n\nEach with the shortest program; its last command breaks the invariant.\n',
    ...FLAWS.map(
      (flaw) =>
        `### ${flaw.profile}: \`${flaw.invariant}\`\n\n${whyOf(flaw)}\n\n\`\`\`\n${flaw.program}\`\`\`\n\n${brokenAtEnd(flaw.invariant, observedOf(flaw)) ?? ''}.\n`,
    ),
    `## The setting\n\n\`\`\`\n${privateGuest('tdx-poison-rfc-v1', true)}\`\`\``,
    '',
  ].join('\n');
