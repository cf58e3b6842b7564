"""The code that a Go method runs first while it may panic: what its bytes are, where they lie, the data it reads.

Its source is `stubs/nil_receiver.S`, which says how it works. This module knows the layout; it stops nothing and
overwrites no function (`patching` does).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from squall.errors import ActionFailed, CannotInject
from squall.kernel import process_memory, vdso
from squall.kernel.elf import Elf
from squall.kernel.go_process import load_bias
from squall.kernel.ptrace import Tracee

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.kernel.elf import Segment

__all__ = [
    "ALWAYS",
    "DATA_SIZE",
    "ENTRY_SIZE",
    "LEFT_AT",
    "MARK_AT",
    "SHARE_AT",
    "UNLIMITED",
    "UNTIL_AT",
    "Data",
    "Place",
    "code",
    "counts",
    "displaced",
    "first_bytes",
    "jump",
    "make_page",
    "place_for",
    "placed",
    "start_of",
    "token_of",
]

ENTRY_SIZE = 5
"""What a jump takes: so many bytes of the method are exchanged."""
MARK_AT = 56
"""The byte of the data that is 1 while whoever patches has the process stopped."""
UNTIL_AT, SHARE_AT, LEFT_AT = 8, 16, 24
"""Where in the data the lease's end, the share and what is left are."""
DATA_SIZE = 64
_DATA = struct.Struct("<8sQQqQ")
_COUNTS = struct.Struct("<QQ")
_COUNTS_AT = 40
_HEADER = struct.Struct("<8sQ")
_MAGIC = b"SqPanic1"
_SLOT_SIZE = 240
_SLOT_ALIGNMENT = 16
_DATA_ADDRESS_AT = 2
_PAGE = 4096
_PAGES_TRIED = 16
_FAR_BELOW, _FAR_ABOVE = 512 << 20, 1 << 30
"""Far enough from the program for its heap to grow, near enough for a jump."""
_LOWEST = 1 << 16
_SYSCALL = b"\x0f\x05"
_MMAP, _MUNMAP, _READ_EXECUTE, _PRIVATE_THERE = 9, 11, 5, 0x100022
"""mmap(2): MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE."""
_WRITABLE, _LOAD = 2, 1
_PROLOGUE_MOST = 24
ALWAYS = 1 << 32
"""The share that is every call."""
UNLIMITED = 1 << 62

_MOVABLE = (
    (b"\x49\x3b\x66\x10", 4),  # cmp rsp, [r14 + 16]: is there stack enough?
    (b"\x4d\x3b\x66\x10", 4),  # cmp r12, [r14 + 16]
    (b"\x4c\x8d\x64\x24", 5),  # lea r12, [rsp + small]
    (b"\x4c\x8d\xa4\x24", 8),  # lea r12, [rsp + large]
    (b"\x48\x89\xe5", 3),  # mov rbp, rsp
    (b"\x48\x83\xec", 4),  # sub rsp, small
    (b"\x48\x81\xec", 7),  # sub rsp, large
    (b"\x48\x89\x44\x24", 5),  # mov [rsp + small], rax
    (b"\x55", 1),  # push rbp
    (b"\x90", 1),
)
"""First instructions of Go functions that do the same wherever they stand, and their lengths."""
_BELOW_SHORT, _BELOW_NEAR = b"\x76", b"\x0f\x86"
_UPROBE, _JUMP = b"\xcc", b"\xe9"


class Place(NamedTuple):
    """Addresses in a process: where the stub lies, its data, the method's entry. `page`: a page for the stub is to be made."""

    stub: int
    data: int
    entry: int
    page: bool = False


class Data(NamedTuple):
    """What is written for the stub: whose it is, when the lease ends (time stamp), the share, how many more, the seed."""

    token: bytes
    until: int
    share: int
    left: int
    draws: int

    def packed(self) -> bytes:
        """As the stub reads it; counts and mark are zero."""
        return _DATA.pack(*self).ljust(DATA_SIZE, b"\0")


def counts(pid: int, data: int) -> tuple[int, int]:
    """How many calls there were while the lease ran, and how many of them panicked; OSError when it is gone."""
    calls, panics = _COUNTS.unpack(process_memory.read(pid, data + _COUNTS_AT, _COUNTS.size))
    return calls, panics


def token_of(name: str) -> bytes:
    """The 8 bytes by which the data is known for this step's; never zero."""
    return hashlib.blake2b(name.encode(), digest_size=7).digest() + b"\x01"


def jump(at: int, to: int) -> bytes:
    """A jump that stands here and leads there; CannotInject when that is too far."""
    distance = to - at - ENTRY_SIZE
    if not -(1 << 31) <= distance < 1 << 31:
        raise CannotInject(f"{to:#x} is too far from {at:#x} for a jump")
    return _JUMP + struct.pack("<i", distance)


def displaced(first: bytes, entry: int, to: int) -> tuple[bytes, int]:
    """A function's first instructions, made to do the same at another address, and how many bytes of it they are.

    CannotInject for an instruction that is not known to be movable.
    """
    moved, at = b"", 0
    if first.startswith(_UPROBE):
        raise CannotInject("a probe (or a debugger's breakpoint) stands at its entry")
    while at < ENTRY_SIZE:
        rest = first[at:]
        known = next((size for pattern, size in _MOVABLE if rest.startswith(pattern)), 0)
        if known:
            moved += rest[:known]
        elif rest.startswith((_BELOW_SHORT, _BELOW_NEAR)):
            short = rest.startswith(_BELOW_SHORT)
            known = 2 if short else 6
            (distance,) = struct.unpack_from("<b" if short else "<i", rest, known - (1 if short else 4))
            target = entry + at + known + distance
            moved += _BELOW_NEAR + struct.pack("<i", target - (to + len(moved) + 6))
        else:
            raise CannotInject(f"it begins with an instruction that is not known to be movable ({rest[:8].hex(' ')})")
        at += known
    return moved, at


@cache
def _template() -> bytes:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stubs", "nil_receiver.o")
    with open(path, "rb") as file:
        elf = Elf(file.read(), path)
    text = elf.section(".text")
    assert text is not None  # noqa: S101 - it is our own
    return elf.contents(text)


def code(place: Place, first: bytes) -> bytes:
    """The stub as it lies in its slot, for a method that begins with these bytes."""
    begin = place.stub + _HEADER.size
    fixed = bytearray(_template())
    struct.pack_into("<Q", fixed, _DATA_ADDRESS_AT, place.data)
    moved, length = displaced(first, place.entry, begin + len(fixed))
    back = jump(begin + len(fixed) + len(moved), place.entry + length)
    whole = _HEADER.pack(_MAGIC, place.entry) + bytes(fixed) + moved + back
    assert len(whole) <= _SLOT_SIZE  # noqa: S101 - the template and the longest prologue fit
    return whole.ljust(_SLOT_SIZE, b"\0")


def start_of(place: Place) -> int:
    """Where the stub's first instruction is."""
    return place.stub + _HEADER.size


def first_bytes(pid: int, entry: int) -> bytes:
    """The first bytes of a function in a process, more than are ever moved."""
    return process_memory.read(pid, entry, _PROLOGUE_MOST)


def place_for(pid: int, entry: int) -> Place:
    """Where the stub and its data for this method can lie; CannotInject when there is no room, or something is there."""
    with Elf.open(f"/proc/{pid}/exe") as elf:
        inode = os.stat(f"/proc/{pid}/exe").st_ino
        mappings = process_memory.mappings(pid)
        bias = load_bias(elf, mappings, inode)
        loaded = [one for one in elf.segments if one.type == _LOAD]
        text = next((one for one in loaded if one.executable and 0 <= entry - bias - one.address < one.file_size), None)
        variables = next((one for one in reversed(loaded) if one.flags & _WRITABLE), None)
    if text is None or variables is None:
        raise CannotInject("its code or its variables are not where a Go program has them")
    stub = _slot(pid, entry, *_rest(text, bias))
    page = False
    if stub is None:
        stub, page = _page_near(
            pid, entry, mappings, (text.address + bias, variables.address + variables.memory_size + bias)
        )
    begin, end = _rest(variables, bias)
    data = begin + 7 & ~7
    if any(one.name == "[heap]" and one.start <= end for one in mappings) or data + DATA_SIZE > end:
        raise CannotInject("there is no unused room behind its variables")
    if any(process_memory.read(pid, data, _COUNTS_AT)):
        raise CannotInject("something uses the room behind its variables")
    return Place(stub, data, entry, page)


def make_page(pid: int, start_ticks: int, at: int) -> None:
    """Have the process map a page for the stub there, by one system call while it is held; ActionFailed or OSError: it has none."""
    address, size = vdso.located(pid)
    instruction = process_memory.read(pid, address, size).find(_SYSCALL)
    if instruction < 0:
        raise ActionFailed("its vDSO has no instruction by which it could be made to call the kernel")
    with Tracee(pid, start_ticks) as held:
        made = held.call(address + instruction, _MMAP, at, _PAGE, _READ_EXECUTE, _PRIVATE_THERE, -1, 0)
        if made != at:  # a kernel that knows no MAP_FIXED_NOREPLACE takes the address for a wish
            held.call(address + instruction, _MUNMAP, made, _PAGE)
            raise ActionFailed("it got no memory where the stub can be reached from")


def _page_near(
    pid: int, entry: int, mappings: Sequence[process_memory.Mapping], module: tuple[int, int]
) -> tuple[int, bool]:
    """A page in reach that is free (True), or that an earlier run made for this very method."""
    begin, end = module
    for first in (begin - _FAR_BELOW, end + _FAR_ABOVE):
        for at in range(first & -_PAGE, (first & -_PAGE) + _PAGES_TRIED * _PAGE, _PAGE):
            if at < _LOWEST or abs(at - entry) >= 1 << 31:
                continue
            if not any(one.start - _PAGE < at < one.end for one in mappings):
                return at, True
            with contextlib.suppress(OSError):
                if process_memory.read(pid, at, _HEADER.size) == _HEADER.pack(_MAGIC, entry):
                    return at, False
    raise CannotInject("there is no room for a stub within reach of its code")


def _rest(segment: Segment, bias: int) -> tuple[int, int]:
    """What is unused of the last page of a segment."""
    begin = segment.address + segment.memory_size + bias
    return begin, (begin + _PAGE - 1) & ~(_PAGE - 1)


def _slot(pid: int, entry: int, begin: int, end: int) -> int | None:
    """A slot that is empty, or that an earlier run left there for this very method; None when there is no room for one."""
    first = (begin + _SLOT_ALIGNMENT - 1) & ~(_SLOT_ALIGNMENT - 1)
    room = process_memory.read(pid, first, max(0, end - first))
    for at in range(0, len(room) - _SLOT_SIZE + 1, _SLOT_SIZE):
        slot = room[at : at + _SLOT_SIZE]
        if slot[: _HEADER.size] == _HEADER.pack(_MAGIC, entry) or not any(slot):
            return first + at
    return None


def placed(pid: int, entry: int) -> Place | None:
    """Where the stub is that a method is led to, None when it is led to none of ours; OSError when it is gone."""
    first = process_memory.read(pid, entry, ENTRY_SIZE)
    if first[:1] != _JUMP:
        return None
    stub = entry + ENTRY_SIZE + struct.unpack("<i", first[1:])[0] - _HEADER.size
    slot = process_memory.read(pid, stub, _SLOT_SIZE)
    if slot[: _HEADER.size] != _HEADER.pack(_MAGIC, entry):
        return None
    return Place(stub, struct.unpack_from("<Q", slot, _HEADER.size + _DATA_ADDRESS_AT)[0], entry)
