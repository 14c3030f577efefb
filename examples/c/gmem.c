/*
 * guest_memfd in user space, for the process protocol of gmem-conformance.
 *
 * Everything is a number in a table: a label names a descriptor, a descriptor an open file, an open
 * file its VM, a slot its VM and its file. What a file is bound to is not written down: the slots
 * tell. Memory is a table of the words that were stored.
 *
 * Written from docs/protocol.md and the sources of Linux 7.3-rc7: virt/kvm/guest_memfd.c,
 * virt/kvm/kvm_main.c, arch/x86/kvm/mmu/mmu.c, fs/open.c; docs/disagreements.md says what 7.3.4 does
 * otherwise. Comments name the function that decides.
 *
 *	cc -std=c11 -Wall -Wextra -Werror -O2 -o gmem examples/c/gmem.c
 *	gmem-conformance run --target process:./gmem
 *
 * --bug=vm-reuse makes a wrong implementation of it: a file keeps the number of its VM, but does
 * not keep the VM. With the VM gone, the number goes to the next one.
 */
#define _POSIX_C_SOURCE 200809L /* getline() */

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE		4096u
#define PAGES(bytes)	((bytes) / PAGE)
#define ARENA		(UINT64_C(1) << 32) /* Where it lies in the address space of the host */
#define ARENA_SIZE	(64 * PAGE)
#define USER_TOP	UINT64_C(0x7ffffffff000) /* TASK_SIZE_MAX */
#define LAST_FRAME	((UINT64_C(1) << 40) - 1) /* kvm_mmu_max_gfn(), with 52 bits */
#define USER_SLOTS	32764u /* KVM_USER_MEM_SLOTS */
#define SLOT_PAGES	((UINT64_C(1) << 31) - 1) /* KVM_MEM_MAX_NR_PAGES */
#define VCPUS		4
#define VCPU_IDS	0x1000u
#define LABEL		32 /* Characters */

enum { DEFAULT_VM, SW_PROTECTED_VM };
enum { LOG_DIRTY = 1, READONLY = 2, GUEST_MEMFD = 4 }; /* KVM_MEM_* */
enum { GMEM_MMAP = 1, INIT_SHARED = 2 }; /* GUEST_MEMFD_FLAG_* */
enum { PRIVATE = 8 }; /* KVM_MEMORY_ATTRIBUTE_PRIVATE */
enum { /* FALLOC_FL_* */
	KEEP_SIZE = 1, PUNCH_HOLE = 2, COLLAPSE_RANGE = 8, ZERO_RANGE = 16,
	INSERT_RANGE = 32, UNSHARE_RANGE = 64, WRITE_ZEROES = 128,
};

static bool vm_reuse; /* --bug=vm-reuse */

static _Noreturn void die(const char *why)
{
	fprintf(stderr, "gmem: %s\n", why);
	exit(1);
}

/* ---- JSON: a value is a part of the line, which was found to be well-formed as a whole ---- */

struct json {
	const char *at, *end;
};

enum { DEPTH_MAX = 16 };

static const char *skip_space(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
		at++;
	return at;
}

static const char *skip_digits(const char *at, const char *end)
{
	while (at < end && *at >= '0' && *at <= '9')
		at++;
	return at;
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef", *found;

	if (c >= 'A' && c <= 'F')
		c = (char)(c - 'A' + 'a');
	found = c ? strchr(digits, c) : NULL;
	return found ? (int)(found - digits) : -1;
}

/* The end of a value, or NULL if none begins here. */
static const char *skip_string(const char *at, const char *end)
{
	if (at == end || *at++ != '"')
		return NULL;
	while (at < end && *at != '"') {
		if ((unsigned char)*at < ' ')
			return NULL;
		if (*at++ != '\\')
			continue;
		if (at == end || !*at || !strchr("\"\\/bfnrtu", *at))
			return NULL;
		if (*at++ != 'u')
			continue;
		for (int i = 0; i < 4; i++, at++)
			if (at == end || hex_digit(*at) < 0)
				return NULL;
	}
	return at < end ? at + 1 : NULL;
}

static const char *skip_number(const char *at, const char *end)
{
	const char *digits;

	if (at < end && *at == '-')
		at++;
	digits = at;
	at = skip_digits(at, end);
	if (at == digits || (*digits == '0' && at > digits + 1))
		return NULL;
	if (at < end && *at == '.') {
		digits = ++at;
		at = skip_digits(at, end);
		if (at == digits)
			return NULL;
	}
	if (at < end && (*at == 'e' || *at == 'E')) {
		at++;
		if (at < end && (*at == '+' || *at == '-'))
			at++;
		digits = at;
		at = skip_digits(at, end);
		if (at == digits)
			return NULL;
	}
	return at;
}

static const char *skip_word(const char *at, const char *end, const char *word)
{
	size_t length = strlen(word);

	return (size_t)(end - at) >= length && !memcmp(at, word, length) ? at + length : NULL;
}

static const char *skip_value(const char *at, const char *end, int depth);

/* An object or an array, behind its bracket. */
static const char *skip_members(const char *at, const char *end, char close, int depth)
{
	at = skip_space(at, end);
	if (at < end && *at == close)
		return at + 1;
	for (;;) {
		if (close == '}') {
			at = skip_string(skip_space(at, end), end);
			at = at ? skip_space(at, end) : NULL;
			if (!at || at == end || *at++ != ':')
				return NULL;
		}
		at = skip_value(at, end, depth);
		at = at ? skip_space(at, end) : NULL;
		if (!at || at == end)
			return NULL;
		if (*at == close)
			return at + 1;
		if (*at++ != ',')
			return NULL;
	}
}

static const char *skip_value(const char *at, const char *end, int depth)
{
	at = skip_space(at, end);
	if (at == end || depth > DEPTH_MAX)
		return NULL;
	switch (*at) {
	case '{': return skip_members(at + 1, end, '}', depth + 1);
	case '[': return skip_members(at + 1, end, ']', depth + 1);
	case '"': return skip_string(at, end);
	case 't': return skip_word(at, end, "true");
	case 'f': return skip_word(at, end, "false");
	case 'n': return skip_word(at, end, "null");
	default: return skip_number(at, end);
	}
}

/* Copies a string without its quotes; what is not ASCII becomes '?'. False if it is none, or too long. */
static bool text(struct json value, char *copy, size_t size)
{
	const char *at = value.at;
	size_t length = 0;

	if (*at++ != '"')
		return false;
	while (*at != '"') {
		static const char named[] = "b\bf\fn\nr\rt\t";
		unsigned int c = (unsigned char)*at++;

		if (c == '\\' && *at == 'u') {
			c = 0;
			for (int i = 0; i < 4; i++)
				c = c * 16 + (unsigned int)hex_digit(at[1 + i]);
			at += 5;
		} else if (c == '\\') {
			const char *found = strchr(named, *at);

			c = (unsigned char)(found ? found[1] : *at);
			at++;
		}
		if (length + 1 >= size)
			return false;
		copy[length++] = c && c < 0x80 ? (char)c : '?';
	}
	copy[length] = '\0';
	return true;
}

/* Goes through an object or an array: the next value, and the name before it. False behind the last. */
static bool next(struct json *rest, struct json *name, struct json *value)
{
	rest->at = skip_space(rest->at + 1, rest->end); /* Behind a bracket or a comma */
	if (rest->at >= rest->end || *rest->at == ']' || *rest->at == '}')
		return false;
	if (name) {
		name->at = rest->at;
		name->end = skip_string(rest->at, rest->end);
		rest->at = skip_space(name->end, rest->end) + 1;
	}
	value->at = skip_space(rest->at, rest->end);
	value->end = skip_value(value->at, rest->end, 0);
	rest->at = skip_space(value->end, rest->end);
	return true;
}

/* The value of a name in an object; at NULL if there is none. */
static struct json optional_member(struct json object, const char *wanted)
{
	struct json name, value, found = { NULL, NULL };
	char known[LABEL + 1];

	if (*object.at != '{')
		die("something is not an object");
	while (next(&object, &name, &value))
		if (text(name, known, sizeof(known)) && !strcmp(known, wanted))
			found = value;
	return found;
}

static struct json member(struct json object, const char *wanted)
{
	struct json found = optional_member(object, wanted);

	if (!found.at) {
		fprintf(stderr, "gmem: where is \"%s\"?\n", wanted);
		exit(1);
	}
	return found;
}

/* ---- What comes of a command ---- */

struct outcome {
	enum { OK, OK_VALUE, ERRNO, MMIO, MEMORY_FAULT, SIGNAL, UNSUPPORTED } kind;
	const char *name; /* Of an error or a signal; the message of UNSUPPORTED */
	uint64_t value; /* Or the guest physical address of an exit */
	bool flag; /* MMIO: a write. MEMORY_FAULT: private */
};

static const struct outcome ok = { .kind = OK };

static struct outcome ok_value(uint64_t value)
{
	return (struct outcome){ .kind = OK_VALUE, .value = value };
}

static struct outcome error(const char *name)
{
	return (struct outcome){ .kind = ERRNO, .name = name };
}

static struct outcome unsupported(const char *message)
{
	return (struct outcome){ .kind = UNSUPPORTED, .name = message };
}

static void print(struct outcome outcome)
{
	switch (outcome.kind) {
	case OK:
		printf("{\"kind\":\"ok\"}");
		break;
	case OK_VALUE:
		printf("{\"kind\":\"ok\",\"value\":\"%" PRIu64 "\"}", outcome.value);
		break;
	case ERRNO:
		printf("{\"kind\":\"errno\",\"errno\":\"%s\"}", outcome.name);
		break;
	case MMIO:
		printf("{\"kind\":\"mmio\",\"gpa\":\"%" PRIu64 "\",\"write\":%s}",
		       outcome.value, outcome.flag ? "true" : "false");
		break;
	case MEMORY_FAULT:
		printf("{\"kind\":\"memory-fault\",\"errno\":\"%s\",\"gpa\":\"%" PRIu64
		       "\",\"private\":%s}",
		       outcome.name, outcome.value, outcome.flag ? "true" : "false");
		break;
	case SIGNAL:
		printf("{\"kind\":\"signal\",\"signal\":\"%s\"}", outcome.name);
		break;
	case UNSUPPORTED:
		printf("{\"kind\":\"unsupported\",\"message\":\"%s\"}", outcome.name);
		break;
	}
}

/* ---- The machine: tables, all of them empty where their first field is zero ---- */

enum kind { NO_FILE, DEVICE, NULL_DEVICE, VM, VCPU, GMEM };

struct descriptor {
	char label[LABEL + 1];
	int file;
};

struct file {
	enum kind kind;
	char label[LABEL + 1]; /* That it was created with */
	int descriptors;
	int vm; /* Of a VM, a vCPU or a gmem file */
	uint64_t size, flags; /* Of a gmem file */
};

struct vm {
	int files; /* That keep it */
	char label[LABEL + 1]; /* That it was created with */
	uint64_t type;
	int vcpus;
	uint64_t vcpu_ids[VCPUS];
	unsigned int generation; /* Of the slots in address space 0, which vCPUs use */
};

enum { NONE = -1 };

struct slot {
	uint64_t pages;
	int vm;
	uint32_t number; /* Address space << 16 | id */
	uint32_t flags;
	uint64_t base; /* Guest frame */
	uint64_t hva;
	int file; /* That it is bound to, or NONE */
	uint64_t first; /* Page of the file */
	bool gmem_only; /* KVM_MEMSLOT_GMEM_ONLY */
};

/* A word that was stored: into a page of a file, or into the arena. */
struct word {
	bool used;
	int file; /* Or NONE for the arena */
	uint64_t offset, value;
};

/* Guest frames with the attribute PRIVATE. */
struct range {
	uint64_t end, start;
	int vm;
};

/* A guest frame that stage 2 has an entry for MMIO of. */
struct mmio {
	bool used;
	int vm;
	uint64_t gfn;
	unsigned int generation;
};

#define TABLE(type, name, size) static struct type name[size]; enum { name##_max = size }

TABLE(descriptor, descriptors, 1024);
TABLE(file, files, 1024);
TABLE(vm, vms, 1024);
TABLE(slot, slots, 1024);
TABLE(word, words, 4096);
TABLE(range, ranges, 4096);
TABLE(mmio, mmios, 4096);

#define FULL unsupported("a table is full: see TABLE() in gmem.c")

static int add_file(const char *label, struct file file)
{
	int d = 0, f = 0;

	while (d < descriptors_max && descriptors[d].label[0])
		d++;
	while (f < files_max && files[f].kind)
		f++;
	if (d == descriptors_max || f == files_max)
		return NONE;
	file.descriptors = 1;
	strcpy(file.label, label);
	files[f] = file;
	strcpy(descriptors[d].label, label);
	descriptors[d].file = f;
	return f;
}

static struct descriptor *find_descriptor(const char *label)
{
	for (int d = 0; d < descriptors_max; d++)
		if (descriptors[d].label[0] && !strcmp(descriptors[d].label, label))
			return &descriptors[d];
	return NULL;
}

static void reset(void)
{
	memset(descriptors, 0, sizeof(descriptors));
	memset(files, 0, sizeof(files));
	memset(vms, 0, sizeof(vms));
	memset(slots, 0, sizeof(slots));
	memset(words, 0, sizeof(words));
	memset(ranges, 0, sizeof(ranges));
	memset(mmios, 0, sizeof(mmios));
	add_file("kvm", (struct file){ .kind = DEVICE });
	add_file("null", (struct file){ .kind = NULL_DEVICE });
}

/* kvm_destroy_vm() */
static void destroy_vm(int vm)
{
	for (int i = 0; i < slots_max; i++)
		if (slots[i].vm == vm)
			slots[i].pages = 0;
	for (int i = 0; i < ranges_max; i++)
		if (ranges[i].vm == vm)
			ranges[i].end = 0;
	for (int i = 0; i < mmios_max; i++)
		if (mmios[i].vm == vm)
			mmios[i].used = false;
}

static void put_vm(int vm)
{
	if (--vms[vm].files == 0)
		destroy_vm(vm);
}

/* kvm_gmem_release(): slots stay, with nothing behind them. The pages go with the inode. */
static void release_gmem(int file)
{
	for (int i = 0; i < slots_max; i++)
		if (slots[i].file == file)
			slots[i].file = NONE;
	for (int i = 0; i < words_max; i++)
		if (words[i].file == file)
			words[i].used = false;
}

static void close_file(int file)
{
	enum kind kind = files[file].kind;

	if (--files[file].descriptors > 0)
		return;
	files[file].kind = NO_FILE;
	if (kind == GMEM)
		release_gmem(file);
	if (kind == VM || kind == VCPU || (kind == GMEM && !vm_reuse))
		put_vm(files[file].vm);
}

static bool has_private_memory(int vm)
{
	return vms[vm].type == SW_PROTECTED_VM;
}

static bool is_private(int vm, uint64_t gfn)
{
	for (int i = 0; i < ranges_max; i++)
		if (ranges[i].end && ranges[i].vm == vm && ranges[i].start <= gfn && gfn < ranges[i].end)
			return true;
	return false;
}

static bool add_range(int vm, uint64_t start, uint64_t end)
{
	for (int i = 0; i < ranges_max; i++)
		if (!ranges[i].end) {
			ranges[i] = (struct range){ .end = end, .start = start, .vm = vm };
			return true;
		}
	return false;
}

/* False where a range would have to be cut in two, and there is no room for one more. */
static bool remove_range(int vm, uint64_t start, uint64_t end)
{
	for (int i = 0; i < ranges_max; i++) {
		struct range *range = &ranges[i];
		uint64_t old_end = range->end;

		if (!old_end || range->vm != vm || range->start >= end || old_end <= start)
			continue;
		range->end = range->start < start ? start : 0;
		if (old_end > end && !add_range(vm, end, old_end))
			return false;
	}
	return true;
}

static struct slot *slot_by_number(int vm, uint32_t number)
{
	for (int i = 0; i < slots_max; i++)
		if (slots[i].pages && slots[i].vm == vm && slots[i].number == number)
			return &slots[i];
	return NULL;
}

/* The slot that vCPUs see at a guest frame: one of address space 0. */
static struct slot *slot_at(int vm, uint64_t gfn)
{
	for (int i = 0; i < slots_max; i++) {
		struct slot *slot = &slots[i];

		if (slot->pages && slot->vm == vm && slot->number >> 16 == 0 &&
		    gfn >= slot->base && gfn - slot->base < slot->pages)
			return slot;
	}
	return NULL;
}

static struct mmio *find_mmio(int vm, uint64_t gfn)
{
	for (int i = 0; i < mmios_max; i++)
		if (mmios[i].used && mmios[i].vm == vm && mmios[i].gfn == gfn)
			return &mmios[i];
	return NULL;
}

static bool remember_mmio(int vm, uint64_t gfn)
{
	struct mmio *mmio = find_mmio(vm, gfn);

	for (int i = 0; !mmio && i < mmios_max; i++)
		if (!mmios[i].used)
			mmio = &mmios[i];
	if (mmio)
		*mmio = (struct mmio){ true, vm, gfn, vms[vm].generation };
	return mmio;
}

static struct word *find_word(int file, uint64_t offset)
{
	for (int i = 0; i < words_max; i++)
		if (words[i].used && words[i].file == file && words[i].offset == offset)
			return &words[i];
	return NULL;
}

static struct outcome load(int file, uint64_t offset)
{
	const struct word *word = find_word(file, offset);

	return ok_value(word ? word->value : 0);
}

static struct outcome store(int file, uint64_t offset, uint64_t value)
{
	struct word *word = find_word(file, offset);

	for (int i = 0; !word && i < words_max; i++)
		if (!words[i].used)
			word = &words[i];
	if (!word)
		return FULL;
	*word = (struct word){ true, file, offset, value };
	return ok;
}

/* ---- Arguments ---- */

/* A number as the protocol writes it. The bits of a negative one are those of its two's complement. */
static uint64_t parse_number(const char *string)
{
	bool negative = *string == '-';
	const char *digits = string + negative;
	unsigned int base = digits[0] == '0' && digits[1] == 'x' ? 16 : 10;
	uint64_t value = 0;

	if (base == 16)
		digits += 2;
	if (!*digits)
		die("a number has no digits");
	for (; *digits; digits++) {
		int digit = hex_digit(*digits);

		if (digit < 0 || (unsigned int)digit >= base ||
		    value > (UINT64_MAX - (unsigned int)digit) / base)
			die("an argument is not a number of 64 bits");
		value = value * base + (unsigned int)digit;
	}
	return negative ? 0 - value : value;
}

struct arguments {
	struct json object;
};

struct string {
	char text[2 * LABEL + 1]; /* A label, "+" and a number have 51 characters at most */
};

static struct string argument(const struct arguments *args, const char *name)
{
	struct string string;

	if (!text(member(args->object, name), string.text, sizeof(string.text)))
		die("an argument is not a string, or longer than any");
	return string;
}

static uint64_t number(const struct arguments *args, const char *name)
{
	return parse_number(argument(args, name).text);
}

static struct string label(const struct arguments *args, const char *name)
{
	struct string string = argument(args, name);

	if (!string.text[0] || strlen(string.text) > LABEL ||
	    string.text[strspn(string.text, "abcdefghijklmnopqrstuvwxyz0123456789-_")])
		die("a label is empty, too long, or has a character that none has");
	return string;
}

static int file_of(const struct arguments *args, const char *name)
{
	const struct descriptor *found = find_descriptor(label(args, name).text);

	return found ? found->file : NONE;
}

/* What an ioctl says that the descriptor does not know. */
static struct outcome unknown_ioctl(int file)
{
	if (file == NONE)
		return error("EBADF");
	return error(files[file].kind == DEVICE || files[file].kind == VCPU ? "EINVAL" : "ENOTTY");
}

static bool is(int file, enum kind kind)
{
	return file != NONE && files[file].kind == kind;
}

static bool aligned(uint64_t value)
{
	return value % PAGE == 0;
}

/* ---- Commands ---- */

static struct outcome vm_create(const struct arguments *args)
{
	int dev = file_of(args, "dev"), vm = 0;
	uint64_t type = number(args, "type");
	struct string new = label(args, "vm");

	if (!is(dev, DEVICE))
		return unknown_ioctl(dev);
	if (type != DEFAULT_VM && type != SW_PROTECTED_VM)
		return error("EINVAL");
	while (vm < vms_max && vms[vm].files)
		vm++;
	if (vm == vms_max ||
	    add_file(new.text, (struct file){ .kind = VM, .vm = vm }) == NONE)
		return FULL;
	vms[vm] = (struct vm){ .files = 1, .type = type };
	strcpy(vms[vm].label, new.text);
	return ok;
}

/* kvm_vm_ioctl_create_vcpu(). A vCPU lives as long as its VM, whatever becomes of its descriptor. */
static struct outcome vcpu_create(const struct arguments *args)
{
	int file = file_of(args, "vm");
	uint64_t id = number(args, "id");
	struct vm *vm;

	if (!is(file, VM))
		return unknown_ioctl(file);
	vm = &vms[files[file].vm];
	if (id >= VCPU_IDS || vm->vcpus == VCPUS)
		return error("EINVAL");
	for (int i = 0; i < vm->vcpus; i++)
		if (vm->vcpu_ids[i] == id)
			return error("EEXIST");
	if (add_file(label(args, "vcpu").text,
		     (struct file){ .kind = VCPU, .vm = files[file].vm }) == NONE)
		return FULL;
	vm->vcpu_ids[vm->vcpus++] = id;
	vm->files++;
	return ok;
}

/* kvm_gmem_create(), which takes the size for a signed number */
static struct outcome gmem_create(const struct arguments *args)
{
	int vm = file_of(args, "vm");
	uint64_t size = number(args, "size"), flags = number(args, "flags"), known = GMEM_MMAP;

	if (!is(vm, VM))
		return unknown_ioctl(vm);
	vm = files[vm].vm;
	if (!has_private_memory(vm))
		known |= INIT_SHARED;
	if (flags & ~known || !size || size > INT64_MAX || !aligned(size))
		return error("EINVAL");
	if (add_file(label(args, "file").text,
		     (struct file){ .kind = GMEM, .vm = vm, .size = size, .flags = flags }) == NONE)
		return FULL;
	if (!vm_reuse)
		vms[vm].files++;
	return ok;
}

/* kvm_swap_active_memslots() */
static void slots_changed(int vm, uint32_t number)
{
	if (number >> 16 == 0)
		vms[vm].generation++;
}

/* What is checked of a file before the architecture prepares the slot */
static struct outcome check_file(const struct slot *slot, int file)
{
	if (file == NONE)
		return error("EBADF");
	if (!is(file, GMEM) || files[file].vm != slot->vm ||
	    slot->first + slot->pages > PAGES(files[file].size))
		return error("EINVAL");
	return ok;
}

/* kvm_gmem_bind() */
static struct outcome bind(struct slot *slot, int file)
{
	for (int i = 0; i < slots_max; i++)
		if (slots[i].pages && slots[i].file == file &&
		    slot->first < slots[i].first + slots[i].pages &&
		    slots[i].first < slot->first + slot->pages)
			return error("EEXIST");
	slot->file = file;
	slot->gmem_only = files[file].flags & GMEM_MMAP;
	return ok;
}

/* kvm_check_memslot_overlap() */
static bool overlaps(const struct slot *slot)
{
	for (int i = 0; i < slots_max; i++)
		if (slots[i].pages && slots[i].vm == slot->vm &&
		    slots[i].number >> 16 == slot->number >> 16 &&
		    slots[i].number != slot->number &&
		    slot->base < slots[i].base + slots[i].pages &&
		    slots[i].base < slot->base + slot->pages)
			return true;
	return false;
}

/*
 * An address of the host: a number, or "arena", "arena+0x1000". Labels of mappings that there never
 * were may come as well, and stand for no address.
 */
static uint64_t parse_address(const char *string)
{
	const char *plus = strchr(string, '+');
	size_t length = plus ? (size_t)(plus - string) : strlen(string);
	bool arena = length == strlen("arena") && !memcmp(string, "arena", length);

	if (*string >= '0' && *string <= '9')
		return parse_number(string);
	return (arena ? ARENA : 0) + (plus ? parse_number(plus + 1) : 0);
}

/* kvm_set_memory_region(), behind the checks of the arguments alone */
static struct outcome set_slot(struct slot *new, int gmem)
{
	struct slot *old = slot_by_number(new->vm, new->number);
	struct slot *place = old;
	struct outcome outcome = ok;

	if (!new->pages) {
		if (!old)
			return error("EINVAL");
		old->pages = 0;
		slots_changed(new->vm, new->number);
		return ok;
	}
	if (old && (new->flags & GUEST_MEMFD || new->hva != old->hva || new->pages != old->pages ||
		    (new->flags ^ old->flags) & (READONLY | GUEST_MEMFD)))
		return error("EINVAL");
	if (old && new->base == old->base && new->flags == old->flags)
		return ok;
	if (overlaps(new))
		return error("EEXIST");
	if (new->flags & GUEST_MEMFD)
		outcome = check_file(new, gmem);
	if (outcome.kind != OK)
		return outcome;
	if (new->base + new->pages - 1 > LAST_FRAME) { /* kvm_arch_prepare_memory_region() */
		if (old) /* It was made invalid, and valid again */
			slots_changed(new->vm, new->number);
		return error("EINVAL");
	}
	if (new->flags & GUEST_MEMFD)
		outcome = bind(new, gmem);
	if (outcome.kind != OK)
		return outcome;
	for (int i = 0; !place && i < slots_max; i++)
		if (!slots[i].pages)
			place = &slots[i];
	if (!place)
		return FULL;
	*place = *new;
	slots_changed(new->vm, new->number);
	return ok;
}

/* kvm_vm_ioctl() and the begin of kvm_set_memory_region(), all of it EINVAL */
static struct outcome slot_set(const struct arguments *args)
{
	int vm = file_of(args, "vm");
	bool v2 = !strcmp(argument(args, "api").text, "v2");
	uint64_t slot = number(args, "slot"), flags = number(args, "flags");
	uint64_t gpa = number(args, "gpa"), size = number(args, "size");
	uint64_t hva = parse_address(argument(args, "hva").text), offset = number(args, "offset");
	uint64_t known = LOG_DIRTY | READONLY;
	bool gmem = v2 && flags & GUEST_MEMFD;
	struct slot new;

	if (!is(vm, VM))
		return unknown_ioctl(vm);
	vm = files[vm].vm;
	if (gmem)
		known = GUEST_MEMFD;
	if (flags & ~known || (slot & 0xffff) >= USER_SLOTS ||
	    slot >> 16 >= (has_private_memory(vm) ? 1 : 2) || !aligned(size) || !aligned(gpa) ||
	    !aligned(hva) || hva > USER_TOP || size > USER_TOP - hva ||
	    (gmem && (!aligned(offset) || offset + size < offset)) || gpa + size < gpa ||
	    PAGES(size) > SLOT_PAGES)
		return error("EINVAL");
	new = (struct slot){
		.pages = PAGES(size), .vm = vm, .number = (uint32_t)slot, .flags = (uint32_t)flags,
		.base = PAGES(gpa), .hva = hva, .file = NONE, .first = PAGES(offset),
	};
	return set_slot(&new, file_of(args, "gmem"));
}

/* kvm_vm_ioctl_set_mem_attributes() */
static struct outcome attributes_set(const struct arguments *args)
{
	int vm = file_of(args, "vm");
	uint64_t address = number(args, "address"), size = number(args, "size");
	uint64_t attributes = number(args, "attributes"), end;

	if (!is(vm, VM))
		return unknown_ioctl(vm);
	vm = files[vm].vm;
	if (number(args, "flags") || attributes & ~(has_private_memory(vm) ? PRIVATE : UINT64_C(0)) ||
	    !size || address + size < address || !aligned(address) || !aligned(size))
		return error("EINVAL");
	address = PAGES(address);
	end = address + PAGES(size);
	if (!remove_range(vm, address, end) || (attributes && !add_range(vm, address, end)))
		return FULL;
	return ok;
}

/* vfs_fallocate(), then kvm_gmem_fallocate() */
static struct outcome gmem_fallocate(const struct arguments *args)
{
	int file = file_of(args, "fd");
	uint64_t mode = number(args, "mode"), what = mode & ~(uint64_t)KEEP_SIZE;
	uint64_t offset = number(args, "offset"), length = number(args, "length");
	bool keep_size = mode & KEEP_SIZE;

	if (file == NONE)
		return error("EBADF");
	if (offset > INT64_MAX || !length || length > INT64_MAX)
		return error("EINVAL");
	switch (what) {
	case 0: case ZERO_RANGE: case UNSHARE_RANGE:
		break;
	case PUNCH_HOLE:
		if (keep_size)
			break;
		return error("EOPNOTSUPP");
	case COLLAPSE_RANGE: case INSERT_RANGE: case WRITE_ZEROES:
		if (!keep_size)
			break;
		return error("EOPNOTSUPP");
	default:
		return error("EOPNOTSUPP");
	}
	if (!is(file, GMEM))
		return error("ENODEV");
	if (offset + length > INT64_MAX)
		return error("EFBIG");
	if (!keep_size || (what && what != PUNCH_HOLE))
		return error("EOPNOTSUPP");
	if (!aligned(offset) || !aligned(length))
		return error("EINVAL");
	if (!what) /* That pages were allocated shows nowhere: they are zero, as those that are not */
		return offset + length > files[file].size ? error("EINVAL") : ok;
	for (int i = 0; i < words_max; i++)
		if (words[i].file == file && words[i].offset >= offset &&
		    words[i].offset - offset < length)
			words[i].used = false;
	return ok;
}

static struct outcome host_access(const struct arguments *args, bool write)
{
	uint64_t offset = number(args, "offset");

	if (strcmp(label(args, "mapping").text, "arena"))
		return unsupported("no mapping but the arena");
	if (offset >= ARENA_SIZE)
		return (struct outcome){ .kind = SIGNAL, .name = "SIGSEGV" };
	return write ? store(NONE, offset, number(args, "value")) : load(NONE, offset);
}

static struct outcome host_load(const struct arguments *args)
{
	return host_access(args, false);
}

static struct outcome host_store(const struct arguments *args)
{
	return host_access(args, true);
}

enum access { LOAD, STORE, PREFAULT };

/* Where a guest physical address leads: a place in a file or in the arena, if the outcome is ok. */
struct place {
	struct outcome outcome;
	int file;
	uint64_t offset;
};

/* kvm_mmu_page_fault() and kvm_mmu_faultin_pfn(), which arch/x86/kvm/mmu/mmu.c has */
static struct place translate(int vm, uint64_t gpa, enum access access)
{
	uint64_t gfn = PAGES(gpa), address;
	const struct slot *slot = slot_at(vm, gfn);
	struct mmio *mmio = find_mmio(vm, gfn);
	/* An entry for MMIO, even one out of date, makes a reserved fault; those never are private. */
	bool private = is_private(vm, gfn) && (!mmio || access == PREFAULT);
	struct place place = { .outcome = ok };
	struct outcome fault = { MEMORY_FAULT, "EFAULT", gfn * PAGE, private };
	struct outcome emulate = { MMIO, NULL, gpa, access == STORE };

	if (mmio && access != PREFAULT && mmio->generation == vms[vm].generation)
		return (struct place){ .outcome = emulate };
	if (private != is_private(vm, gfn) || (private && !slot))
		return (struct place){ .outcome = fault };
	if (!slot)
		return (struct place){ .outcome = remember_mmio(vm, gfn) ? emulate : FULL };
	if (private || slot->gmem_only) {
		if (slot->file == NONE)
			return (struct place){ .outcome = fault };
		place.file = slot->file;
		place.offset = (gfn - slot->base + slot->first) * PAGE + gpa % PAGE;
	} else {
		if (access == STORE && slot->flags & READONLY)
			return (struct place){ .outcome = emulate };
		address = slot->hva + (gfn - slot->base) * PAGE;
		if (address < ARENA || address - ARENA >= ARENA_SIZE)
			return (struct place){ .outcome = error("EFAULT") };
		place.file = NONE;
		place.offset = address - ARENA + gpa % PAGE;
	}
	if (mmio)
		mmio->used = false;
	return place;
}

static struct outcome guest_load(const struct arguments *args)
{
	int vcpu = file_of(args, "vcpu");
	struct place place;

	if (!is(vcpu, VCPU))
		return unknown_ioctl(vcpu);
	place = translate(files[vcpu].vm, number(args, "gpa"), LOAD);
	return place.outcome.kind == OK ? load(place.file, place.offset) : place.outcome;
}

static struct outcome guest_store(const struct arguments *args)
{
	int vcpu = file_of(args, "vcpu");
	struct place place;

	if (!is(vcpu, VCPU))
		return unknown_ioctl(vcpu);
	place = translate(files[vcpu].vm, number(args, "gpa"), STORE);
	if (place.outcome.kind != OK)
		return place.outcome;
	return store(place.file, place.offset, number(args, "value"));
}

/* kvm_vcpu_pre_fault_memory(): a success from the first page on */
static struct outcome vcpu_prefault(const struct arguments *args)
{
	int vcpu = file_of(args, "vcpu");
	uint64_t gpa = number(args, "gpa"), size = number(args, "size"), done;

	if (!is(vcpu, VCPU))
		return unknown_ioctl(vcpu);
	if (number(args, "flags") || !aligned(gpa) || !aligned(size) || gpa + size <= gpa)
		return error("EINVAL");
	for (done = 0; done < size; done += PAGE) {
		struct outcome outcome = translate(files[vcpu].vm, gpa + done, PREFAULT).outcome;

		if (outcome.kind == UNSUPPORTED || (outcome.kind != OK && done))
			return outcome.kind == UNSUPPORTED ? outcome : ok_value(done);
		if (outcome.kind == MMIO)
			return error("ENOENT");
		if (outcome.kind != OK)
			return error(outcome.name);
	}
	return ok_value(size);
}

static struct outcome fd_dup(const struct arguments *args)
{
	int file = file_of(args, "fd");

	if (file == NONE)
		return error("EBADF");
	for (int d = 0; d < descriptors_max; d++)
		if (!descriptors[d].label[0]) {
			strcpy(descriptors[d].label, label(args, "as").text);
			descriptors[d].file = file;
			files[file].descriptors++;
			return ok;
		}
	return FULL;
}

static struct outcome fd_close(const struct arguments *args)
{
	struct descriptor *found = find_descriptor(label(args, "fd").text);

	if (!found)
		return error("EBADF");
	found->label[0] = '\0';
	close_file(found->file);
	return ok;
}

static const struct command {
	const char *name;
	struct outcome (*execute)(const struct arguments *args);
} commands[] = {
	{ "vm.create", vm_create },
	{ "vcpu.create", vcpu_create },
	{ "gmem.create", gmem_create },
	{ "slot.set", slot_set },
	{ "attributes.set", attributes_set },
	{ "gmem.fallocate", gmem_fallocate },
	{ "host.load", host_load },
	{ "host.store", host_store },
	{ "guest.load", guest_load },
	{ "guest.store", guest_store },
	{ "vcpu.prefault", vcpu_prefault },
	{ "fd.dup", fd_dup },
	{ "fd.close", fd_close },
};

enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

/* ---- The protocol ---- */

static struct outcome execute(struct json command)
{
	struct arguments args = { member(command, "args") };
	char name[LABEL + 1];

	if (!text(member(command, "name"), name, sizeof(name)))
		die("the name of a command is not a string, or longer than any");
	for (int i = 0; i < COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return commands[i].execute(&args);
	return unsupported("no such command here");
}

/* What is true of the machine, as far as that is told: which VMs and which files there are. */
static void print_facts(void)
{
	const char *between = "";

	printf(",\"facts\":{\"vms\":[");
	for (int i = 0; i < vms_max; i++)
		if (vms[i].files) {
			printf("%s{\"vm\":\"%s\"}", between, vms[i].label);
			between = ",";
		}
	between = "";
	printf("],\"files\":[");
	for (int i = 0; i < files_max; i++)
		if (is(i, GMEM)) {
			const char *name = files[i].label;

			printf("%s{\"file\":\"%s\",\"vm\":\"%s\",\"inode\":\"%s\"}", between, name,
			       vms[files[i].vm].label, name);
			between = ",";
		}
	printf("]}");
}

static void hello(void)
{
	printf("{\"type\":\"hello\",\"protocol\":1,\"name\":\"gmem.c\",\"version\":\"1\","
	       "\"profile\":\"linux-7.3\",\"machine\":{\"memoryBytes\":\"0x40000000\"},"
	       "\"capabilities\":[\"facts\"],\"commands\":[");
	for (int i = 0; i < COMMANDS; i++)
		printf("%s\"%s\"", i ? "," : "", commands[i].name);
	printf("]}\n");
}

static void run(struct json message)
{
	struct json list = member(message, "commands"), id = member(message, "id"), command;
	struct json facts = optional_member(message, "facts"); /* false, or not there */
	const char *between = "";

	if (*list.at != '[')
		die("the commands of a run are not an array");
	printf("{\"type\":\"observations\",\"id\":%.*s,\"observations\":[", (int)(id.end - id.at), id.at);
	while (next(&list, NULL, &command)) {
		struct outcome outcome = execute(command);

		printf("%s{\"outcome\":", between);
		print(outcome);
		if (!facts.at)
			print_facts();
		printf("}");
		if (outcome.kind == UNSUPPORTED)
			break;
		between = ",";
	}
	printf("]}\n");
}

static void answer(const char *line, size_t length)
{
	struct json message = { skip_space(line, line + length), line + length };
	const char *end = skip_value(line, line + length, 0);
	char type[LABEL + 1];

	if (!end || skip_space(end, message.end) != message.end)
		die("a line is not JSON");
	if (!text(member(message, "type"), type, sizeof(type)))
		die("the type of a message is not a string");
	if (!strcmp(type, "hello"))
		hello();
	else if (!strcmp(type, "reset"))
		reset();
	else if (!strcmp(type, "run"))
		run(message);
	else
		die("a message has an unknown type");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t length;

	vm_reuse = argc == 2 && !strcmp(argv[1], "--bug=vm-reuse");
	if (argc > 1 && !vm_reuse)
		die("usage: gmem [--bug=vm-reuse]");
	reset();
	while ((length = getline(&line, &size, stdin)) > 0)
		answer(line, (size_t)length);
	free(line);
	return 0;
}
