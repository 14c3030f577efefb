#!/usr/bin/env python3
"""guest_memfd in user space, for the process protocol of gmem-conformance.

Everything that the kernel does for a guest memory file is done here with objects and dictionaries: an open file
is an object that counts its users, guest memory is a dictionary of pages, a slot refers to the file behind it.
There is no stage 2: each access of a guest finds its page anew.

Written from docs/protocol.md and the sources of Linux 7.3-rc7: virt/kvm/guest_memfd.c, virt/kvm/kvm_main.c,
arch/x86/kvm/mmu/mmu.c, fs/open.c, mm/mmap.c; docs/disagreements.md says what 7.3.4 does otherwise. Comments name the
function that decides.

    gmem-conformance run --target "process:python3 examples/python/gmem.py"

`--bug=stale-binding` makes a wrong implementation of it: a slot that is deleted stays in the table of its file.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, NoReturn, TypeVar, get_type_hints

PAGE = 4096
WORD = 8
TWO_TO_64 = 1 << 64
USER_TOP = 0x7FFF_FFFF_F000  # TASK_SIZE_MAX
LAST_GUEST_FRAME = (1 << (52 - 12)) - 1  # kvm_mmu_max_gfn()
MAX_SLOTS = 32764  # KVM_USER_MEM_SLOTS
MAX_SLOT_PAGES = (1 << 31) - 1  # KVM_MEM_MAX_NR_PAGES
MAX_VCPUS = 4
MAX_VCPU_ID = 0x1000
MAX_FILE_SIZE = (1 << 63) - 1

DEFAULT, SW_PROTECTED = 0, 1  # KVM_X86_*_VM
LOG_DIRTY, READONLY, GUEST_MEMFD = 1, 2, 4  # KVM_MEM_*
MMAP, INIT_SHARED = 1, 2  # GUEST_MEMFD_FLAG_*
PRIVATE = 8  # KVM_MEMORY_ATTRIBUTE_PRIVATE
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO, INSERT, UNSHARE, ZEROES = 1, 2, 8, 16, 32, 64, 128  # FALLOC_FL_*


class NotOk(Exception):
    """What came of a command that did not succeed: the outcome, as the protocol has it."""

    def __init__(self, kind: str, **fields: Any) -> None:
        super().__init__(kind)
        self.outcome = {"kind": kind, **fields}


def fail(errno: str) -> NoReturn:
    raise NotOk("errno", errno=errno)


def require(condition: bool, errno: str) -> None:
    if not condition:
        fail(errno)


def aligned(*numbers: int) -> bool:
    return all(number % PAGE == 0 for number in numbers)


def overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


class Pages(dict[int, bytearray]):
    """Pages by their number. Those that are not there are zero, and come with the first touch."""

    def __missing__(self, index: int) -> bytearray:
        self[index] = bytearray(PAGE)
        return self[index]


class Ranges:
    """A set of page numbers, as ranges that are in order and do not touch."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.ranges)

    def __contains__(self, index: int) -> bool:
        return any(start <= index < end for start, end in self.ranges)

    def discard(self, start: int, end: int) -> None:
        pieces = [piece for low, high in self.ranges for piece in ((low, min(high, start)), (max(low, end), high))]
        self.ranges = [(low, high) for low, high in pieces if low < high]

    def add(self, start: int, end: int) -> None:
        touching = [(low, high) for low, high in self.ranges if low <= end and high >= start]
        low = min([start, *(low for low, _ in touching)])
        high = max([end, *(high for _, high in touching)])
        self.discard(low, high)
        self.ranges = sorted([*self.ranges, (low, high)])


# ---- What descriptors stand for ----


class OpenFile:
    """An open file (struct file), with as many users as descriptors and mappings refer to it."""

    unknown_ioctl = "ENOTTY"

    def __init__(self) -> None:
        self.users = 0

    def put(self) -> None:
        self.users -= 1
        if self.users == 0:
            self.release()

    def release(self) -> None:
        """Called with the last user gone. A struct kvm needs none: Python frees what nothing refers to."""


class KvmDevice(OpenFile):
    unknown_ioctl = "EINVAL"  # kvm_arch_dev_ioctl()


class NullDevice(OpenFile):
    pass


@dataclass(eq=False)
class Kvm:
    """A struct kvm: there as long as an open file refers to it."""

    name: str
    type: int
    slots: dict[int, Slot] = field(default_factory=dict)  # By the number given to the ioctl: address space << 16 | id
    private: Ranges = field(default_factory=Ranges)
    vcpu_ids: set[int] = field(default_factory=set)

    @property
    def has_private_memory(self) -> bool:
        return self.type == SW_PROTECTED

    @property
    def address_spaces(self) -> int:
        return 1 if self.has_private_memory else 2

    @property
    def gmem_flags(self) -> int:
        """kvm_gmem_get_supported_flags()"""
        return MMAP if self.has_private_memory else MMAP | INIT_SHARED

    def slot_at(self, gfn: int) -> Slot | None:
        return next((slot for slot in self.slots.values() if slot.number < 1 << 16 and gfn in slot.frames), None)


class VmFile(OpenFile):
    def __init__(self, vm: Kvm) -> None:
        super().__init__()
        self.vm = vm


class VcpuFile(OpenFile):
    unknown_ioctl = "EINVAL"  # kvm_arch_vcpu_ioctl()

    def __init__(self, vm: Kvm) -> None:
        super().__init__()
        self.vm = vm


class GmemFile(OpenFile):
    """A guest memory file with its inode; without KVM_LINK_GUEST_MEMFD each has one of its own."""

    def __init__(self, name: str, vm: Kvm, size: int, flags: int) -> None:
        super().__init__()
        self.name = name
        self.vm = vm  # For ever, and never the other way round
        self.size = size
        self.flags = flags
        self.pages = Pages()
        self.bindings: list[Slot] = []

    def bind(self, slot: Slot) -> None:
        """kvm_gmem_bind()"""
        for other in self.bindings:
            require(not overlap(slot.file_pages, other.file_pages), "EEXIST")
        self.bindings.append(slot)
        slot.file = self
        slot.gmem_only = bool(self.flags & MMAP)

    def release(self) -> None:
        """kvm_gmem_release(): the slots stay, with no memory behind them."""
        for slot in self.bindings:
            slot.file = None
        self.bindings.clear()


@dataclass(eq=False)
class Slot:
    number: int
    flags: int
    base: int  # Guest frame
    pages: int
    hva: int
    first_page: int  # Of the file
    file: GmemFile | None = None
    gmem_only: bool = False  # KVM_MEMSLOT_GMEM_ONLY; the file may be gone

    @property
    def frames(self) -> range:
        return range(self.base, self.base + self.pages)

    @property
    def file_pages(self) -> range:
        return range(self.first_page, self.first_page + self.pages)


@dataclass(eq=False)
class Mapping:
    """A range of host addresses, of a file or of anonymous memory."""

    start: int
    length: int
    file: GmemFile | None = None
    first_page: int = 0
    pages: Pages = field(default_factory=Pages)

    def page(self, address: int) -> bytearray:
        """The page behind an address of the mapping; kvm_gmem_fault_user_mapping()"""
        index = (address - self.start) // PAGE + self.first_page
        if self.file is None:
            return self.pages[index]
        if index * PAGE >= self.file.size or not self.file.flags & INIT_SHARED:
            raise NotOk("signal", signal="SIGBUS")
        return self.file.pages[index]


# ---- Commands ----

Command = Callable[..., "int | None"]
AnyFile = TypeVar("AnyFile", bound=OpenFile)
COMMANDS: dict[str, Command] = {}


def command(name: str) -> Callable[[Command], Command]:
    """Registers a method. Its parameters are arguments of the command; those that are `int` arrive as numbers."""

    def register(method: Command) -> Command:
        COMMANDS[name] = method
        return method

    return register


class Machine:
    """The machine from one `reset` to the next."""

    def __init__(self, bug: str | None = None) -> None:
        self.bug = bug
        self.descriptors: dict[str, OpenFile] = {}
        self.mappings: dict[str, Mapping] = {}  # By label, also those that are gone
        self.mapped: list[Mapping] = []
        self.next_address = 1 << 32
        self.open("kvm", KvmDevice())
        self.open("null", NullDevice())
        self.map("arena", Mapping(self.next_address, 64 * PAGE))

    def execute(self, name: str, args: dict[str, str]) -> dict[str, Any]:
        """Executes one command, and says what came of it: an outcome of the protocol."""
        method = COMMANDS.get(name)
        if method is None:
            return {"kind": "unsupported", "message": f"no {name}"}
        hints = {key: hint for key, hint in get_type_hints(method).items() if key != "return"}
        values = {key: args[key.rstrip("_")] for key in hints}
        try:
            value = method(self, **{key: int(text, 0) if hints[key] is int else text for key, text in values.items()})
        except NotOk as other:
            return other.outcome
        return {"kind": "ok"} if value is None else {"kind": "ok", "value": hex(value)}

    # Labels

    def open(self, label: str, file: OpenFile) -> None:
        file.users += 1
        self.descriptors[label] = file

    def fd(self, label: str) -> OpenFile:
        if label not in self.descriptors:
            fail("EBADF")
        return self.descriptors[label]

    def ioctl(self, label: str, kind: type[AnyFile]) -> AnyFile:
        """The open file, if it is one of the kind that has the ioctl."""
        file = self.fd(label)
        if not isinstance(file, kind):
            fail(file.unknown_ioctl)
        return file

    # The address space of the host

    def map(self, label: str, mapping: Mapping) -> None:
        """Addresses are never used again, and mappings lie far apart."""
        if mapping.file is not None:
            mapping.file.users += 1
        self.mappings[label] = mapping
        self.mapped.append(mapping)
        self.next_address = -(-(mapping.start + mapping.length + 512 * PAGE) // (1 << 32)) << 32

    def address(self, text: str) -> int:
        """`arena+0x1000`, `arena`, or a number. A label without a mapping stands for no address in particular."""
        if text[0].isdigit():
            return int(text, 0)
        label, _, offset = text.partition("+")
        start = self.mappings[label].start if label in self.mappings else 0
        return (start + int(offset or "0", 0)) % TWO_TO_64

    def host_page(self, address: int) -> bytearray:
        mapping = next((each for each in self.mapped if 0 <= address - each.start < each.length), None)
        if mapping is None:
            raise NotOk("signal", signal="SIGSEGV")
        return mapping.page(address)

    # Virtual machines

    @command("vm.create")
    def vm_create(self, vm: str, dev: str, type_: int) -> None:
        self.ioctl(dev, KvmDevice)
        require(type_ in (DEFAULT, SW_PROTECTED), "EINVAL")
        self.open(vm, VmFile(Kvm(vm, type_)))

    @command("vcpu.create")
    def vcpu_create(self, vcpu: str, vm: str, id_: int) -> None:
        """kvm_vm_ioctl_create_vcpu(). A vCPU lives as long as its VM, whatever becomes of its descriptor."""
        kvm = self.ioctl(vm, VmFile).vm
        require(id_ < MAX_VCPU_ID and len(kvm.vcpu_ids) < MAX_VCPUS, "EINVAL")
        require(id_ not in kvm.vcpu_ids, "EEXIST")
        kvm.vcpu_ids.add(id_)
        self.open(vcpu, VcpuFile(kvm))

    @command("attributes.set")
    def attributes_set(self, vm: str, address: int, size: int, attributes: int, flags: int) -> None:
        """kvm_vm_ioctl_set_mem_attributes()"""
        kvm = self.ioctl(vm, VmFile).vm
        supported = PRIVATE if kvm.has_private_memory else 0
        require(flags == 0 and not attributes & ~supported, "EINVAL")
        require(size != 0 and address + size < TWO_TO_64 and aligned(address, size), "EINVAL")
        change = kvm.private.add if attributes else kvm.private.discard
        change(address // PAGE, (address + size) // PAGE)

    @command("slot.set")
    def slot_set(
        self, vm: str, api: str, slot: int, flags: int, gpa: int, size: int, hva: str, gmem: str, offset: int
    ) -> None:
        """kvm_vm_ioctl() down to kvm_set_memory_region(): what has EINVAL in common may be checked in any order."""
        kvm = self.ioctl(vm, VmFile).vm
        userspace = self.address(hva)
        allowed = LOG_DIRTY | READONLY
        if flags & GUEST_MEMFD and api == "v2":
            allowed = GUEST_MEMFD
            require(aligned(offset) and offset + size < TWO_TO_64, "EINVAL")
        require(not flags & ~allowed, "EINVAL")
        require(slot & 0xFFFF < MAX_SLOTS and slot >> 16 < kvm.address_spaces, "EINVAL")
        require(aligned(size, gpa, userspace) and userspace + size <= USER_TOP, "EINVAL")
        require(gpa + size < TWO_TO_64 and size // PAGE <= MAX_SLOT_PAGES, "EINVAL")

        old = kvm.slots.get(slot)
        if size == 0:
            self.delete_slot(kvm, old)
            return
        new = Slot(slot, flags, gpa // PAGE, size // PAGE, userspace, offset // PAGE)
        if old is not None:
            require(not flags & GUEST_MEMFD, "EINVAL")
            require((new.hva, new.pages) == (old.hva, old.pages), "EINVAL")
            require(not (flags ^ old.flags) & (READONLY | GUEST_MEMFD), "EINVAL")
            if (new.base, new.flags) == (old.base, old.flags):
                return
        self.check_overlap(kvm, new)
        file = self.file_to_bind(kvm, new, gmem) if flags & GUEST_MEMFD else None
        require(new.frames[-1] <= LAST_GUEST_FRAME, "EINVAL")  # kvm_arch_prepare_memory_region()
        if file is not None:
            file.bind(new)
        kvm.slots[slot] = new

    def check_overlap(self, kvm: Kvm, new: Slot) -> None:
        """kvm_check_memslot_overlap()"""
        for other in kvm.slots.values():
            if other.number >> 16 == new.number >> 16 and other.number != new.number:
                require(not overlap(new.frames, other.frames), "EEXIST")

    def file_to_bind(self, kvm: Kvm, new: Slot, gmem: str) -> GmemFile:
        """What is checked of the file before the architecture prepares the slot"""
        file = self.fd(gmem)
        if not isinstance(file, GmemFile) or file.vm is not kvm:
            fail("EINVAL")
        require(new.file_pages.stop <= file.size // PAGE, "EINVAL")
        return file

    def delete_slot(self, kvm: Kvm, slot: Slot | None) -> None:
        if slot is None:
            fail("EINVAL")
        if slot.file is not None and self.bug != "stale-binding":
            slot.file.bindings.remove(slot)
        del kvm.slots[slot.number]

    # Guest memory files

    @command("gmem.create")
    def gmem_create(self, file: str, vm: str, size: int, flags: int) -> None:
        """kvm_gmem_create(), which takes the size for a signed number"""
        kvm = self.ioctl(vm, VmFile).vm
        require(not flags & ~kvm.gmem_flags, "EINVAL")
        require(0 < size <= MAX_FILE_SIZE and aligned(size), "EINVAL")
        self.open(file, GmemFile(file, kvm, size, flags))

    @command("gmem.fallocate")
    def gmem_fallocate(self, fd: str, mode: int, offset: int, length: int) -> None:
        """vfs_fallocate(), then kvm_gmem_fallocate()"""
        file = self.fd(fd)
        what = mode & ~KEEP_SIZE
        require(offset >= 0 and length > 0, "EINVAL")
        require(what in (0, PUNCH_HOLE, COLLAPSE, ZERO, INSERT, UNSHARE, ZEROES), "EOPNOTSUPP")
        require(what != PUNCH_HOLE or bool(mode & KEEP_SIZE), "EOPNOTSUPP")
        require(what not in (COLLAPSE, INSERT, ZEROES) or not mode & KEEP_SIZE, "EOPNOTSUPP")
        if not isinstance(file, GmemFile):
            fail("ENODEV")
        require(offset + length <= MAX_FILE_SIZE, "EFBIG")
        require(bool(mode & KEEP_SIZE) and what in (0, PUNCH_HOLE), "EOPNOTSUPP")
        require(aligned(offset, length), "EINVAL")
        if what == PUNCH_HOLE:
            holes = range(offset // PAGE, (offset + length) // PAGE)
            for index in [index for index in file.pages if index in holes]:
                del file.pages[index]
        else:
            # That a page was allocated shows nowhere: what is not there is as good as zero.
            require(offset + length <= file.size, "EINVAL")

    @command("file.stat")
    def file_stat(self, fd: str, field: str) -> int:
        file = self.fd(fd)
        if not isinstance(file, GmemFile):
            raise NotOk("unsupported", message="file.stat of something else than guest memory")
        return {"size": file.size, "mode": 0o100600, "blocks": 0}[field]

    @command("file.truncate")
    def file_truncate(self, fd: str, size: int) -> None:
        """do_sys_ftruncate(), and kvm_gmem_setattr() at the end of it"""
        require(size >= 0, "EINVAL")
        self.fd(fd)
        fail("EINVAL")

    # Mappings of the host

    @command("mem.map")
    def mem_map(self, mapping: str, fd: str, length: int, offset: int, sharing: str) -> None:
        """The system call, do_mmap(), kvm_gmem_mmap()"""
        require(aligned(offset), "EINVAL")
        file = self.fd(fd)
        require(length > 0, "EINVAL")
        rounded = -(-length // PAGE) * PAGE
        require(self.next_address + rounded <= USER_TOP, "ENOMEM")
        if isinstance(file, VcpuFile):
            raise NotOk("unsupported", message="mem.map of a vCPU")
        if not isinstance(file, GmemFile):
            fail("ENODEV")
        require(offset <= MAX_FILE_SIZE - rounded, "EOVERFLOW")
        require(bool(file.flags & MMAP), "ENODEV")
        require(sharing != "private", "EINVAL")
        self.map(mapping, Mapping(self.next_address, rounded, file, offset // PAGE))

    @command("mem.unmap")
    def mem_unmap(self, mapping: str) -> None:
        gone = self.mappings[mapping]
        self.mapped.remove(gone)
        if gone.file is not None:
            gone.file.put()

    @command("host.load")
    def host_load(self, mapping: str, offset: int) -> int:
        return self.load(self.host_page, (self.mappings[mapping].start + offset) % TWO_TO_64)

    @command("host.store")
    def host_store(self, mapping: str, offset: int, value: int) -> None:
        self.store(self.host_page, (self.mappings[mapping].start + offset) % TWO_TO_64, value)

    def load(self, page_at: Callable[[int], bytearray], address: int) -> int:
        start = address % PAGE
        return int.from_bytes(page_at(address)[start : start + WORD], "little")

    def store(self, page_at: Callable[[int], bytearray], address: int, value: int) -> None:
        start = address % PAGE
        page_at(address)[start : start + WORD] = value.to_bytes(WORD, "little")

    # Accesses of a guest

    @command("guest.load")
    def guest_load(self, vcpu: str, gpa: int) -> int:
        kvm = self.ioctl(vcpu, VcpuFile).vm
        return self.load(lambda address: self.guest_page(kvm, address, write=False), gpa)

    @command("guest.store")
    def guest_store(self, vcpu: str, gpa: int, value: int) -> None:
        kvm = self.ioctl(vcpu, VcpuFile).vm
        self.store(lambda address: self.guest_page(kvm, address, write=True), gpa, value)

    def guest_page(self, kvm: Kvm, gpa: int, write: bool) -> bytearray:
        """kvm_mmu_faultin_pfn(): the page, or what the vCPU comes back with. MMIO is never cached here."""
        gfn = gpa // PAGE
        private = gfn in kvm.private
        slot = kvm.slot_at(gfn)
        mmio = NotOk("mmio", gpa=hex(gpa), write=write)
        fault = NotOk("memory-fault", errno="EFAULT", gpa=hex(gfn * PAGE), private=private)
        if slot is None:
            raise fault if private else mmio
        if private or slot.gmem_only:
            if slot.file is None:
                raise fault
            return slot.file.pages[gfn - slot.base + slot.first_page]
        if write and slot.flags & READONLY:
            raise mmio
        try:
            return self.host_page(slot.hva + (gfn - slot.base) * PAGE)
        except NotOk:
            fail("EFAULT")

    # Descriptors

    @command("fd.dup")
    def fd_dup(self, as_: str, fd: str) -> None:
        self.open(as_, self.fd(fd))

    @command("fd.close")
    def fd_close(self, fd: str) -> None:
        self.fd(fd)
        self.descriptors.pop(fd).put()

    # Facts

    def facts(self) -> dict[str, list[dict[str, Any]]]:
        """What is true of the machine, as far as it has it: there is no stage 2, and there are no frames."""
        open_files = [*self.descriptors.values(), *(each.file for each in self.mapped if each.file is not None)]
        vms = {file.vm.name: file.vm for file in open_files if isinstance(file, (VmFile, VcpuFile, GmemFile))}
        files = {file.name: file for file in open_files if isinstance(file, GmemFile)}
        return {
            "vms": [{"vm": name} for name in vms],
            "private": [
                {"vm": vm.name, "start": start, "end": end} for vm in vms.values() for start, end in vm.private
            ],
            "files": [{"file": file.name, "vm": file.vm.name, "inode": file.name} for file in files.values()],
            "inodes": [{"inode": file.name, "pages": file.size // PAGE} for file in files.values()],
            "slots": [
                {
                    "vm": vm.name,
                    "slot": slot.number,
                    "baseGfn": slot.base,
                    "pages": slot.pages,
                    "gmem": bool(slot.flags & GUEST_MEMFD),
                    "file": slot.file.name if slot.file else None,
                    "firstPage": slot.first_page,
                }
                for vm in vms.values()
                for slot in vm.slots.values()
            ],
            "bindings": [
                {
                    "file": file.name,
                    "start": slot.file_pages.start,
                    "end": slot.file_pages.stop,
                    "vm": file.vm.name,
                    "slot": slot.number,
                    "live": file.vm.slots.get(slot.number) is slot,
                }
                for file in files.values()
                for slot in file.bindings
            ],
        }


# ---- The protocol ----

HELLO = {
    "type": "hello",
    "protocol": 1,
    "name": "gmem.py",
    "version": "1",
    "profile": "linux-7.3",
    "commands": list(COMMANDS),
    "capabilities": ["facts"],
    "missing": {"memory-failure": "memory never fails here", "fault-injection": "no allocation ever fails here"},
}


def run(machine: Machine, commands: list[dict[str, Any]], wants_facts: bool) -> Iterator[dict[str, Any]]:
    """The observation of each command, up to one that is unsupported; with facts where they have changed."""
    told = None
    for each in commands:
        outcome = machine.execute(each["name"], each["args"])
        facts = machine.facts() if wants_facts else None
        yield {"outcome": outcome} if facts == told else {"outcome": outcome, "facts": facts}
        told = facts
        if outcome["kind"] == "unsupported":
            return


def main() -> None:
    parser = argparse.ArgumentParser(description="guest_memfd in user space, for gmem-conformance")
    parser.add_argument("--bug", choices=["stale-binding"], help="be wrong in this way")
    bug = parser.parse_args().bug
    machine = Machine(bug)
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "hello":
            answer: dict[str, Any] = HELLO
        elif message["type"] == "reset":
            machine = Machine(bug)
            continue
        elif message["type"] == "run":
            observations = list(run(machine, message["commands"], message.get("facts", True)))
            answer = {"type": "observations", "id": message["id"], "observations": observations}
        else:
            sys.exit(f"unknown message {message['type']!r}")
        print(json.dumps(answer, separators=(",", ":")), flush=True)


if __name__ == "__main__":
    main()
