/** docs/sev.md: who may use a key, and whether an announcement arrives; the table comes from the specification. */
import { calledIn, HYPERCALL_MACHINES, HYPERCALL_WAYS } from '../properties/hypercall-designs.ts';
import { HYPERCALL } from '../properties/support.ts';

const HEAD = `# SEV: keys that are shared, and the call that announces

What the specification of SEV comes to ([adr/0012-sev.md](adr/0012-sev.md)). It is written by \`npm run docs\`;
[properties/hypercall-designs.ts](../properties/hypercall-designs.ts) has the programs.

## Keys

An ASID is a key. A struct kvm is created for a file descriptor; a virtual machine is what has the key; the two need not be the same. A
mirror (migration helper) is a second struct kvm with the key of the first, and an intra-host migration gives the key to another struct
kvm for good. Who keeps what alive:

| what | keeps alive |
| --- | --- |
| a descriptor of a VM, of a vCPU, or of a file of guest memory | its struct kvm |
| a mirror | the struct kvm that owns its context, wherever that moves |
| the struct kvm that owns a context | the firmware’s context, the ASID, the pages of its regions |
| an ASID that was given back | nothing, but nobody has it before WBINVD and DF_FLUSH |

So a mirror never uses a key after the owner’s context is gone (\`key/helper-within-owner\`), in whatever order descriptors are closed. A file of guest memory
says nothing of keys: with several files on one inode, each of another struct kvm, who reads something is a matter of the key alone.

What reading 7.3.4 (\`arch/x86/kvm/svm/sev.c\`) showed besides:

- **A context that has moved cannot be launched on.** \`sev_migrate_from()\` moves ASID, handle, regions and features, and not the number of the descriptor of /dev/sev. Every
  command that goes to the firmware by \`sev_issue_cmd()\`, even GUEST_STATUS, then goes to descriptor 0, and fails with EBADF.
- **A context that has moved to a VM of a SEV type cannot run.** The destination still waits for KVM_SEV_INIT2 (\`need_init\`), which is refused because SEV is active; so
  \`kvm_x86_vcpu_pre_run()\` answers KVM_RUN with EINVAL. A destination of type KVM_X86_DEFAULT_VM does run. A mirror of any type runs: COPY does clear \`need_init\`.
- **COPY asks for no type.** A VM of type SNP becomes a mirror of one of plain SEV, and is then not an SNP guest.
- **Before LAUNCH_START every such command is EBADF**, and not what the firmware says of a context that is not there.
- **guest_memfd frees pages of SEV and SEV-ES with dirty lines in caches.** Memory that user space maps is written back when it is taken (\`sev_guest_memory_reclaimed()\`, of CVE-2022-0171).
  Pages of guest_memfd go through \`sev_gmem_make_shared()\`, which says why they must be flushed as well, and does so only where the RMP has them assigned, as SNP’s are. A guest of SEV or SEV-ES that
  has its memory in a file with INIT_SHARED is not. \`sev-gmem-link\` concedes \`memory/free-is-present\` for it.
- **A page-state change that is answered wrongly stays under way.** A VMM may answer 0, EINVAL or EAGAIN. At anything else \`snp_complete_one_psc()\` has KVM_RUN fail with EINVAL, and \`psc.batch_size\`
  stays as it is. If the VMM runs the guest again, that has no answer, and its next change meets the WARN_ON_ONCE() at the beginning of \`snp_do_psc()\`: a VMM and its guest can have the host warn. By reading; the specification has no VMM that does so.
- **A flush frees both ranges.** It is made only when the range that is asked for has nothing free and something to reclaim, and then serves
  the ASIDs of SEV-ES and SNP as well as those of SEV.

## The instruction

How does the announcement of a page’s status get to the host? In 2020 hypercalls were VMCALL until alternatives made them VMMCALL on AMD; KVM patched what
came too early, by decoding the instruction behind #UD. It cannot read the instructions of a guest of SEV. Three answers: leave it so (\`hypercall-patched\`),
announce always by VMMCALL (\`hypercall-linux-7.3\`, which was merged), or compile VMMCALL in and opt into VMCALL (\`hypercall-vmmcall-default\`, proposed).

*exit*: the VMM is asked. *patched*: it is, after KVM has changed the guest’s text, and where the VMM has disabled the quirk the guest gets #UD. *undecodable*: KVM
intercepts #UD and reads ciphertext. The guest’s kernel calls, in 64-bit mode, and its text may be written to.
`;

const TAIL = `
- Only \`hypercall-patched\` leaves a guest of SEV without a way to announce early. That KVM intercepts its #UD is how the thread tells it; \`init_vmcb()\` of
  that time clears the intercept for SEV already, and then the guest gets #UD, with which it can do as little.
- In \`hypercall-linux-7.3\` an announcement on Intel would have to be patched. \`kvm_init_platform()\` makes one where memory is encrypted and the VMM
  offers KVM_FEATURE_MIGRATION_CONTROL, and TDX counts as encrypted: only the CPUID of the VMM keeps a TDX guest from VMMCALL.
- \`hypercall-vmmcall-default\` moves the same gap to other hypercalls on Intel, where the host can read the text; with the quirk disabled an early one is #UD.
- From ring 3, KVM’s emulator refuses VMCALL (#GP) and not VMMCALL, which it patches on Intel; the hypercall itself is then refused with EPERM.
`;

const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;

const cell = (...[profile, machine, way]: Parameters<typeof calledIn>): string => {
  const answer = calledIn(profile, machine, way);
  return answer === 'exit' && calledIn(profile, machine, way, false) !== 'exit' ? 'patched' : answer;
};

const table = (profile: string): string =>
  [
    `### \`${profile}\``,
    '',
    row(['call', ...HYPERCALL_MACHINES.map(({ what }) => what)]),
    row(['---', ...HYPERCALL_MACHINES.map(() => '---')]),
    ...HYPERCALL_WAYS.map((way) =>
      row([way.what, ...HYPERCALL_MACHINES.map((machine) => cell(profile, machine, way))]),
    ),
    '',
  ].join('\n');

export const sevMarkdown = (): string => [HEAD, ...HYPERCALL.map(table)].join('\n') + TAIL;
