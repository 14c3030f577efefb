/*
 * A task of the kernel under test, whose memory fails. It is started in place of the agent, obeys
 * lines that arrive on the port whose path is the one argument, and answers each with a line:
 *
 *	anon N, shared N, gmem N  maps N pages and writes to each; a guest has them as an ordinary
 *				  slot, or, for gmem, as guest memory
 *	frame P			  the frame of page P, in hexadecimal, or 0 where it is not mapped
 *	find FLAG		  takes a frame with that flag of /proc/kpageflags for that of page 0
 *	poisoned P		  1 where /proc/kpageflags says so of the frame that it had last
 *	early			  asks for early signals (PR_MCE_KILL_EARLY)
 *	corrupt P, unpoison P	  hwpoison-inject, for that frame
 *	hwpoison P, offline P	  madvise(MADV_HWPOISON), madvise(MADV_SOFT_OFFLINE)
 *	punch P, drop P		  takes the page out of its file; munmap()
 *	load P, store P		  in user mode
 *	copy P			  in kernel mode: the word is copied in by write()
 *	guest P			  KVM_RUN: the guest loads from the page; the answer is the exit reason
 *	run			  KVM_RUN, from where the guest is
 *	at			  where the guest is: MACHINE_CHECK_AT + 1 behind a machine check
 *	setup-mce CAP		  KVM_X86_SETUP_MCE
 *	set-mce BANK STATUS MCG	  KVM_X86_SET_MCE, the last two in hexadecimal
 *	cr4 BITS		  sets those of the guest, as VMMs do
 *	rdmsr N, wrmsr N VALUE	  of the guest, in hexadecimal
 *	spin P			  loads from the page in user mode, until it is killed or is told SIGBUS
 *	copying			  has the kernel copy from its memory, again and again, until a copy is short
 *	idle			  sleeps, so that the processor has nothing to do
 *
 * The answer is a number, that of an error with a minus. A signal that came meanwhile stands behind
 * it: `SIGBUS CODE PAGE`, where PAGE is `-` for an address that is in none. `spin`, `idle` and
 * `copying` are answered when they begin, and again when they end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* Not in every libc's headers. Source: include/uapi/asm-generic/mman-common.h */
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif

#define PAGE	  4096ul
#define PAGES_MAX 16u
#define COPY_BYTES (1ul << 20)

/* In the guest's first page. */
#define MACHINE_CHECK_VECTOR 18
#define MACHINE_CHECK_AT     0x100
#define STACK_TOP	     0x800

/* Not yet in every libc's headers. Source: include/uapi/linux/kvm.h */
#define CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct create_guest_memfd)
#define SET_REGION2	   _IOW(KVMIO, 0x49, struct region2)
#define MMAP_INIT_SHARED   3
#define MEM_GUEST_MEMFD	   4

struct create_guest_memfd {
	uint64_t size, flags, reserved[6];
};

struct region2 {
	uint32_t slot, flags;
	uint64_t guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset;
	uint32_t guest_memfd, pad1;
	uint64_t pad2[14];
};

/* Both ends of the port. */
static FILE *orders, *answers;
static unsigned char *memory;
static int file = -1, scratch = -1, vcpu = -1;
static struct kvm_run *run;
static uint64_t frames[PAGES_MAX];

/* Of 4 KiB each; a guest has no more. */
#define FRAMES_MAX (1u << 20)

/* Source: include/uapi/linux/kernel-page-flags.h */
#define KPF_HWPOISON 19

/* The signal that has come and nobody was told of yet. */
static volatile sig_atomic_t code, told = true;
static void *volatile address;
static volatile sig_atomic_t leaves;
static sigjmp_buf way_out;

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	code = info->si_code;
	address = info->si_addr;
	told = false;
	if (leaves)
		siglongjmp(way_out, 1);
}

static void say_signal(void)
{
	const char *name = code == BUS_MCEERR_AR   ? "AR"
			   : code == BUS_MCEERR_AO ? "AO"
			   : code == SI_KERNEL	   ? "KERNEL"
						   : "OTHER";
	uintptr_t page = ((uintptr_t)address - (uintptr_t)memory) / PAGE;

	if (page < PAGES_MAX)
		fprintf(answers, " SIGBUS %s %lu", name, page);
	else
		fprintf(answers, " SIGBUS %s -", name);
}

static void say(const char *format, int64_t number)
{
	fprintf(answers, format, number);
	if (!told)
		say_signal();
	told = true;
	fprintf(answers, "\n");
	fflush(answers);
}

static int64_t or_errno(int64_t result)
{
	return result < 0 ? -errno : result;
}

/* Eight bytes of a file of /proc that has as many for each page. */
static uint64_t word_of(const char *path, uint64_t index)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t word = 0;

	if (fd >= 0 && pread(fd, &word, sizeof(word), (off_t)(index * sizeof(word))) < 0)
		word = 0;
	close(fd);
	return word;
}

static uint64_t frame_now(uint64_t page)
{
	uint64_t entry = word_of("/proc/self/pagemap", (uintptr_t)memory / PAGE + page);

	return entry >> 63 ? entry & ((1ull << 55) - 1) : 0;
}

static int64_t inject(const char *path, uint64_t frame)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int64_t result = fd < 0 ? -errno : or_errno(dprintf(fd, "%#lx", frame));

	close(fd);
	return result < 0 ? result : 0;
}

static int64_t run_guest(void)
{
	int64_t result;

	run->exit_reason = 0;
	result = or_errno(ioctl(vcpu, KVM_RUN, 0));
	return result < 0 ? result : (int64_t)run->exit_reason;
}

/* Real mode; the segment register says which page. */
static int64_t guest_loads(uint64_t page)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rflags = 2, .rsp = STACK_TOP };

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return -errno;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	sregs.ds.base = PAGE * (page + 1);
	sregs.ds.selector = (uint16_t)(sregs.ds.base >> 4);
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) || ioctl(vcpu, KVM_SET_REGS, &regs))
		return -errno;
	return run_guest();
}

static int set_region(int vm, uint32_t slot, uint64_t gpa, uint64_t size, void *hva, int gmem)
{
	struct region2 region = { .slot = slot,
				  .flags = gmem < 0 ? 0 : MEM_GUEST_MEMFD,
				  .guest_phys_addr = gpa,
				  .memory_size = size,
				  .userspace_addr = (uintptr_t)hva,
				  .guest_memfd = gmem < 0 ? 0 : (uint32_t)gmem };

	return ioctl(vm, SET_REGION2, &region);
}

static int64_t set_cr4(uint64_t bits)
{
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return -errno;
	sregs.cr4 |= bits;
	return or_errno(ioctl(vcpu, KVM_SET_SREGS, &sregs));
}

static int64_t set_mce(const uint64_t args[3])
{
	struct kvm_x86_mce mce = { .bank = (uint8_t)args[0],
				   .status = args[1],
				   .mcg_status = args[2],
				   .addr = PAGE,
				   .misc = 0x8c };

	return or_errno(ioctl(vcpu, KVM_X86_SET_MCE, &mce));
}

/* KVM_GET_MSRS or KVM_SET_MSRS of one. */
static int64_t msr(unsigned long request, const uint64_t args[3])
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} one = { .head.nmsrs = 1, .entry = { .index = (uint32_t)args[0], .data = args[1] } };
	int64_t done = or_errno(ioctl(vcpu, request, &one));

	return done != 1 ? -EINVAL : request == KVM_GET_MSRS ? (int64_t)one.entry.data : 0;
}

static int64_t guest_at(void)
{
	struct kvm_regs regs;

	return ioctl(vcpu, KVM_GET_REGS, &regs) ? -errno : (int64_t)regs.rip;
}

/* A guest with code in its page 0, and the memory behind it. */
static int64_t make_guest(int vm, uint64_t pages, bool has_gmem)
{
	static const unsigned char program[] = { 0x8a, 0x07, 0xf4 }; /* mov al, [bx]; hlt */
	unsigned char *first = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (first == MAP_FAILED)
		return -errno;
	memcpy(first, program, sizeof(program));
	memcpy(first + 4 * MACHINE_CHECK_VECTOR, &(uint32_t){ MACHINE_CHECK_AT }, 4);
	first[MACHINE_CHECK_AT] = 0xf4;
	if (set_region(vm, 0, 0, PAGE, first, -1) ||
	    set_region(vm, 1, PAGE, pages * PAGE, memory, has_gmem ? file : -1))
		return -errno;
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	run = vcpu < 0 ? MAP_FAILED
		       : mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	return run == MAP_FAILED ? -errno : 0;
}

static int64_t map(const char *kind, uint64_t pages)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
	bool is_gmem = !strcmp(kind, "gmem");
	struct create_guest_memfd create = { .size = pages * PAGE, .flags = MMAP_INIT_SHARED };

	if (is_gmem)
		file = vm < 0 ? -1 : ioctl(vm, CREATE_GUEST_MEMFD, &create);
	else if (!strcmp(kind, "shared"))
		file = memfd_create("shared", 0);
	if (strcmp(kind, "anon") && (file < 0 || (!is_gmem && ftruncate(file, (off_t)create.size))))
		return -errno;
	memory = mmap(NULL, create.size, PROT_READ | PROT_WRITE,
		      file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, file, 0);
	if (memory == MAP_FAILED)
		return -errno;
	madvise(memory, create.size, MADV_NOHUGEPAGE);
	for (uint64_t page = 0; page < pages; page++) {
		memory[page * PAGE] = (unsigned char)(page + 1);
		frames[page] = frame_now(page);
	}
	/* Where the processor can have no guests, the task does without. */
	return vm < 0 ? 0 : make_guest(vm, pages, is_gmem);
}

static int64_t touch(const char *how, uint64_t page)
{
	volatile unsigned char *at = memory + page * PAGE;
	int64_t result = 0;

	leaves = true;
	if (!sigsetjmp(way_out, 1)) {
		do {
			if (!strcmp(how, "store"))
				*at = 0x5a;
			else
				result = *at;
		} while (!strcmp(how, "spin"));
	}
	leaves = false;
	return result;
}

/* What the last copy came to. */
static int64_t keep_copying(void)
{
	unsigned char *from = mmap(NULL, COPY_BYTES, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	int64_t copied;

	do
		copied = or_errno(pwrite(scratch, from, COPY_BYTES, 0));
	while (copied == COPY_BYTES);
	return copied;
}

static int64_t find(uint64_t flag)
{
	for (frames[0] = 1; frames[0] < FRAMES_MAX; frames[0]++)
		if (word_of("/proc/kpageflags", frames[0]) >> flag & 1)
			return (int64_t)frames[0];
	return 0;
}

static int64_t obey(const char *order, const uint64_t args[3])
{
	uint64_t n = args[0];
	unsigned char *at = memory + n * PAGE;

	if (!strcmp(order, "anon") || !strcmp(order, "shared") || !strcmp(order, "gmem"))
		return map(order, n);
	if (!strcmp(order, "find"))
		return find(n);
	if (!strcmp(order, "run"))
		return run_guest();
	if (!strcmp(order, "at"))
		return guest_at();
	if (!strcmp(order, "setup-mce"))
		return or_errno(ioctl(vcpu, KVM_X86_SETUP_MCE, &n));
	if (!strcmp(order, "set-mce"))
		return set_mce(args);
	if (!strcmp(order, "cr4"))
		return set_cr4(n);
	if (!strcmp(order, "rdmsr"))
		return msr(KVM_GET_MSRS, args);
	if (!strcmp(order, "wrmsr"))
		return msr(KVM_SET_MSRS, args);
	if (!strcmp(order, "copying"))
		return keep_copying();
	if (!strcmp(order, "frame")) {
		uint64_t frame = frame_now(n);

		frames[n] = frame ? frame : frames[n];
		return (int64_t)frame;
	}
	if (!strcmp(order, "poisoned"))
		return (int64_t)(word_of("/proc/kpageflags", frames[n]) >> KPF_HWPOISON & 1);
	if (!strcmp(order, "early"))
		return or_errno(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
	if (!strcmp(order, "corrupt"))
		return inject("/sys/kernel/debug/hwpoison/corrupt-pfn", frames[n]);
	if (!strcmp(order, "unpoison"))
		return inject("/sys/kernel/debug/hwpoison/unpoison-pfn", frames[n]);
	if (!strcmp(order, "hwpoison"))
		return or_errno(madvise(at, PAGE, MADV_HWPOISON));
	if (!strcmp(order, "offline"))
		return or_errno(madvise(at, PAGE, MADV_SOFT_OFFLINE));
	if (!strcmp(order, "punch"))
		return or_errno(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					  (off_t)(n * PAGE), (off_t)PAGE));
	if (!strcmp(order, "drop"))
		return or_errno(munmap(at, PAGE));
	if (!strcmp(order, "copy"))
		return or_errno(pwrite(scratch, at, sizeof(uint64_t), 0));
	if (!strcmp(order, "guest"))
		return guest_loads(n);
	if (!strcmp(order, "idle"))
		return or_errno(nanosleep(&(struct timespec){ .tv_sec = 3600 }, NULL));
	return touch(order, n);
}

static bool is_hexadecimal(const char *order)
{
	static const char *const those[] = { "frame", "find", "rdmsr", "at" };

	for (size_t i = 0; i < sizeof(those) / sizeof(those[0]); i++)
		if (!strcmp(order, those[i]))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_RESTART };
	char line[64], order[32];
	uint64_t args[3];

	int port = argc == 2 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;

	orders = fdopen(port, "r");
	answers = fdopen(dup(port), "w");
	scratch = memfd_create("scratch", 0);
	if (!orders || !answers || scratch < 0 || sigaction(SIGBUS, &action, NULL))
		return 1;
	while (fgets(line, sizeof(line), orders)) {
		memset(args, 0, sizeof(args));
		if (sscanf(line, "%31s %li %lx %lx", order, (long *)&args[0], &args[1], &args[2]) < 1)
			return 2;
		if (!strcmp(order, "spin") || !strcmp(order, "idle") || !strcmp(order, "copying"))
			say("%ld", 0);
		say(is_hexadecimal(order) ? "%#lx" : "%ld", obey(order, args));
	}
	return 0;
}
