/** The C functions with which a vCPU touches guest memory; guest.ts says how that works. */
import { PAGE_SIZE } from '../../model/core/abi.ts';
import { number } from './c-text.ts';
import { CONTROL, cpuidLeaves, ENTRY_FLAGS, LOAD, RFLAGS, RING_AT, SEGMENTS, STORE, type GuestPlan } from './guest.ts';
import { CLOCK } from './uapi.ts';

const initializer = (fields: Readonly<Record<string, bigint>>): string =>
  Object.entries(fields)
    .map(([name, value]) => `.${name} = ${number(value)}`)
    .join(', ');

const code = (bytes: Uint8Array): string =>
  [...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('');

/** What the text uses of it; nothing where the program has no vCPUs that touch memory, and has no tables walked. */
export function guestFunctions(plan: GuestPlan | undefined, text: string): readonly string[] {
  const uses = (name: string): boolean => text.includes(`${name}(`);
  const runs = uses('prepare_vcpu');
  if (plan === undefined) return [];
  return [
    ...(uses('add_code_slot') || uses('guest_walk') ? [`#define CODE_GPA ${number(plan.gpa)}`] : []),
    ...(uses('add_code_slot') ? [memory(plan, runs)] : []),
    ...(runs || uses('guest_walk') ? [registers(plan)] : []),
    ...(runs ? [PREPARE_VCPU] : []),
    ...(uses('guest_load') || uses('guest_store') ? [TOUCH] : []),
    ...(uses('guest_load') ? [GUEST_LOAD] : []),
    ...(uses('guest_store') ? [GUEST_STORE] : []),
    ...(uses('guest_walk') ? [GUEST_WALK] : []),
    ...(uses('guest_clock') ? [GUEST_CLOCK] : []),
  ];
}

function memory({ slot, bytes, shown }: GuestPlan, runs: boolean): string {
  const defines = `#define CODE_SLOT ${slot}
#define CODE_PAGES ${BigInt(bytes) / PAGE_SIZE}`;
  const slotFunction = `/* Gives a VM the slot that holds tables and code. */
static void add_code_slot(long vm)
{
	struct kvm_userspace_memory_region region = {
		.slot = CODE_SLOT,
		.guest_phys_addr = CODE_GPA,
		.memory_size = sizeof(code_memory),
		.userspace_addr = (unsigned long)code_memory,
	};

	ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}`;
  if (!runs)
    return `/*
 * Without two-dimensional paging a VM that never had a slot may have no page tables: so that
 * this is not in question, each VM gets a slot that the program does not speak of.
 */
${defines}

static __u64 code_memory[CODE_PAGES][512] __attribute__((aligned(4096)));

${slotFunction}`;
  return `/*
 * What it takes for a vCPU to touch guest memory: a slot in a place that the program does not
 * speak of. In it lie page tables, and code in 64-bit user mode that makes one access:
 *
 *	load:	mov (%rbx), %rax	store:	mov %rax, (%rbx)
 *		mov %rax, (%rdx)		mov %rax, (%rdx)
 *		ud2				ud2
 *
 * The second instruction rings the doorbell, a page behind the slot, where there is no memory:
 * so KVM_RUN returns with KVM_EXIT_MMIO once the code is past its access.
 */
${defines}
#define DOORBELL (CODE_GPA + CODE_PAGES * 4096ULL)
#define PRESENT ${number(ENTRY_FLAGS)}	/* present, writable, user, accessed, dirty */

static __u64 code_memory[CODE_PAGES][512] __attribute__((aligned(4096)));

/* Guest pages, which the tables show from virtual page 1 on; page 0 is the code. */
static const __u64 shown[] = {
${shown.map((page, index) => `\t${index === shown.length - 1 ? 'DOORBELL' : number(page)},`).join('\n')}
};

static __u64 virtual_address(__u64 gpa)
{
	__u64 page = 0;

	while (shown[page] != (gpa & -4096ULL))
		page++;
	return (page + 1) * 4096 + (gpa & 4095);
}

static void write_tables(void)
{
	__u64 page, *entries = code_memory[4];

	code_memory[0][0] = (CODE_GPA + 0x1000) | PRESENT;
	code_memory[1][0] = (CODE_GPA + 0x2000) | PRESENT;
	for (page = 4; page < CODE_PAGES; page++)
		code_memory[2][page - 4] = (CODE_GPA + page * 4096) | PRESENT;

	entries[0] = (CODE_GPA + 0x3000) | PRESENT;
	for (page = 0; page < sizeof(shown) / sizeof(shown[0]); page++)
		entries[page + 1] = shown[page] | PRESENT;

	memcpy(code_memory[3], "${code(LOAD)}", ${LOAD.length});
	memcpy(code_memory[3] + 1, "${code(STORE)}", ${STORE.length});
}

${slotFunction}`;
}

const registers = ({ guestPhysicalBits }: GuestPlan): string => {
  const leaves = cpuidLeaves(guestPhysicalBits);
  return `/* Puts a vCPU into 64-bit user mode, with page tables at cr3. */
static void set_mode(long vcpu, __u64 cr3)
{
	struct {
		__u32 nent, padding;
		struct kvm_cpuid_entry2 entries[${leaves.length}];
	} cpuid = {
		.nent = ${leaves.length},
		.entries = {
${leaves.map((leaf) => `\t\t\t{ ${initializer(leaf)} },`).join('\n')}
		},
	};
${[...new Set(Object.values(SEGMENTS))].map((fields) => segment(kindOf(fields), fields)).join('\n')}
	struct kvm_sregs sregs = {
		.cr3 = cr3,
${Object.entries(CONTROL)
  .map(([name, value]) => `\t\t.${name} = ${number(value)},`)
  .join('\n')}
${Object.entries(SEGMENTS)
  .map(([name, fields]) => `\t\t.${name} = ${kindOf(fields)},`)
  .join('\n')}
	};

	ioctl(vcpu, KVM_SET_CPUID2, &cpuid);
	ioctl(vcpu, KVM_SET_SREGS, &sregs);
}`;
};

const PREPARE_VCPU = `/* Answers where the struct kvm_run of the vCPU is mapped. */
static long prepare_vcpu(long vcpu)
{
	set_mode(vcpu, CODE_GPA);
	return sys(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0));
}`;

/** The segment register by whose name a segment goes that several have. */
const kindOf = (segment: object): string => Object.entries(SEGMENTS).find(([, each]) => each === segment)?.[0] ?? '';

const segment = (name: string, { limit, ...rest }: (typeof SEGMENTS)['tr' | 'cs']): string =>
  `\tconst struct kvm_segment ${name} = {\n\t\t.limit = ${number(limit)},\n\t\t${initializer(rest)},\n\t};`;

const TOUCH = `/* Whether the exit is for memory that cannot be had; older headers lack run->memory_fault. */
static int is_memory_fault(const struct kvm_run *run, long result)
{
	return run->exit_reason == KVM_EXIT_MEMORY_FAULT &&
	       (result == -EFAULT || result == -EHWPOISON);
}

/* Runs the code at rip. A load tells what it loaded. */
static const char *touch(long vcpu, long run_address, struct kvm_regs regs, int loads)
{
	struct kvm_run *run = (void *)run_address;
	struct { __u64 flags, gpa, size; } fault;
	long result;

	regs.rdx = virtual_address(DOORBELL);
	regs.rflags = ${number(RFLAGS)};
	ioctl(vcpu, KVM_SET_REGS, &regs);
	result = sys(ioctl(vcpu, KVM_RUN, NULL));
	if (is_error(run_address))
		return outcome(result);

	outcome(result);
	if (is_memory_fault(run, result)) {
		memcpy(&fault, run->padding, sizeof(fault));
		snprintf(seen, sizeof(seen), "MEMORY_FAULT %s gpa=0x%llx %s", cause,
			 (unsigned long long)fault.gpa,
			 fault.flags & KVM_MEMORY_EXIT_FLAG_PRIVATE ? "private" : "shared");
	} else if (is_error(result)) {
		return seen;
	} else if (run->exit_reason != KVM_EXIT_MMIO) {
		snprintf(seen, sizeof(seen), "exit reason %u", run->exit_reason);
	} else if (run->mmio.phys_addr != DOORBELL) {
		snprintf(seen, sizeof(seen), "MMIO %s gpa=0x%llx",
			 run->mmio.is_write ? "write" : "read",
			 (unsigned long long)run->mmio.phys_addr);
		/* Completes the access, which would spoil the registers of the next one. */
		ioctl(vcpu, KVM_RUN, NULL);
	} else if (loads) {
		unsigned long word;

		memcpy(&word, run->mmio.data, sizeof(word));
		snprintf(seen, sizeof(seen), "ok 0x%lx", word);
	}
	return seen;
}`;

const GUEST_LOAD = `static const char *guest_load(long vcpu, long run, __u64 gpa)
{
	struct kvm_regs regs = { .rip = 0, .rbx = virtual_address(gpa) };

	return touch(vcpu, run, regs, 1);
}`;

const GUEST_WALK = `/* Where the page tables at cr3 lead; all ones where they lead nowhere. */
static const char *guest_walk(long vcpu, __u64 cr3, __u64 gva)
{
	struct kvm_translation translation = { .linear_address = gva };
	long result;

	set_mode(vcpu, cr3);
	result = sys(ioctl(vcpu, KVM_TRANSLATE, &translation));
	set_mode(vcpu, CODE_GPA);
	return outcome_value(result, translation.physical_address);
}`;

const GUEST_CLOCK = `/* Runs a vCPU with its kvm-clock at a guest address: whether a time comes to the host address. */
static const char *guest_clock(long vcpu, long run, __u64 gpa, unsigned long host)
{
	struct kvm_regs regs = {
		.rip = ${RING_AT},
		.rdx = virtual_address(DOORBELL),
		.rflags = ${number(RFLAGS)},
	};
	struct {
		__u32 nmsrs, pad;
		struct kvm_msr_entry entry;
	} msrs = { .nmsrs = 1, .entry = { .index = ${number(CLOCK.msr)} } };
	__u32 version;
	long result = sys(ioctl(vcpu, KVM_SET_MSRS, &msrs));

	if (is_error(run) || result != 1)
		return outcome(result);
	memset((void *)host, 0, ${CLOCK.bytes});
	msrs.entry.data = gpa | ${number(CLOCK.enabled)};
	ioctl(vcpu, KVM_SET_MSRS, &msrs);
	ioctl(vcpu, KVM_SET_REGS, &regs);
	ioctl(vcpu, KVM_RUN, NULL);
	msrs.entry.data = 0;
	ioctl(vcpu, KVM_SET_MSRS, &msrs);
	memcpy(&version, (void *)host, sizeof(version));
	memset((void *)host, 0, ${CLOCK.bytes});
	return outcome_value(result, version != 0);
}`;

const GUEST_STORE = `static const char *guest_store(long vcpu, long run, __u64 gpa, __u64 word)
{
	struct kvm_regs regs = { .rip = ${LOAD.length}, .rbx = virtual_address(gpa), .rax = word };

	return touch(vcpu, run, regs, 0);
}`;
