"""Where a program and its libraries make system calls, and which call each place makes.

Read from the files that a process has mapped: functions from the unwind table (.eh_frame, which no stripping removes) or
Go's own table, instructions from each function's first one on. Only what is certainly a `syscall` instruction counts.
"""

from __future__ import annotations

import bisect
import os
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from squall.kernel import process_memory, x86
from squall.kernel.elf import Elf, ImageError
from squall.kernel.gosym import GoFunctions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from squall.kernel.elf import Segment
    from squall.kernel.process_memory import Mapping

__all__ = ["ANY", "CAVE", "Module", "Site", "modules", "sites_of"]

ANY = -1
"""A site's number where it makes whatever call its caller names."""
CAVE = 5
"""What a jump to anywhere takes."""
_MACHINE_X86_64 = 62
_LOAD, _UNWIND = 1, 0x6474E550
_SYSCALL = b"\x0f\x05"
_MOV_EAX = 0xB8
_MOV_EAX_SIZE = 5
_LOOK_BACK = 8
_SHORT_LEAST, _SHORT_MOST = -128, 127
_HINT = struct.Struct("<BBBBii")
_RELATIVE_TABLE = b"\x01\x1b\x03\x3b"
"""Version 1; pointers relative to themselves, 4 bytes; the count as 4 bytes; the table relative to its own beginning."""
_FDE_MOST = 1_000_000


class Site(NamedTuple):
    """A `syscall` instruction, by its address in the file's own terms.

    `loads` is where the instruction directly before it begins when that one is `mov $number, %eax`, else 0; `cave` the
    address of `CAVE` bytes of padding between functions that a short jump from it reaches, 0 for none, and `padding`
    those bytes.
    """

    address: int
    number: int
    loads: int
    cave: int
    padding: bytes

    @property
    def patchable(self) -> bool:
        """Whether there is a way to lead it elsewhere that changes one instruction only."""
        return bool(self.loads or self.cave)


class Module(NamedTuple):
    """A program or library as a process has it mapped: an address in the file plus `bias` is one in the process."""

    name: str
    start: int
    end: int
    bias: int
    sites: tuple[Site, ...]


def modules(pid: int) -> list[Module]:
    """Everything with code that a process has mapped from files and that makes system calls, the program first.

    What cannot be read as ELF for x86-64 is left out. PermissionError where the process may not be looked into.
    """
    by_file: dict[tuple[str, int], list[Mapping]] = {}
    for one in process_memory.mappings(pid):
        if one.inode:
            by_file.setdefault((one.device, one.inode), []).append(one)
    found = []
    for parts in by_file.values():
        code = next((one for one in parts if "x" in one.permissions), None)
        if code is None:
            continue
        sites, first_address = _sites_in(pid, code)
        if sites:
            found.append(
                Module(
                    parts[0].name, min(one.start for one in parts), max(one.end for one in parts),
                    code.start - first_address, sites,
                )
            )  # fmt: skip
    return found


def _sites_in(pid: int, code: Mapping) -> tuple[tuple[Site, ...], int]:
    """The sites of the file behind a mapping, and the file's own address of the mapping's first byte."""
    path = next((path for path in _paths(pid, code) if _is(path, code)), None)
    if path is None:
        return (), 0
    info = os.stat(path)
    try:
        return sites_of(path, info.st_dev, info.st_ino, info.st_mtime_ns), _address_of(path, code.offset)
    except (ImageError, OSError, struct.error):
        return (), 0


def _paths(pid: int, code: Mapping) -> tuple[str, ...]:
    return (f"/proc/{pid}/root{code.name}", f"/proc/{pid}/map_files/{code.start:x}-{code.end:x}", f"/proc/{pid}/exe")


def _is(path: str, code: Mapping) -> bool:
    try:
        return os.stat(path).st_ino == code.inode
    except OSError:
        return False


def _address_of(path: str, offset: int) -> int:
    with Elf.open(path) as elf:
        for one in elf.segments:
            first = one.offset & ~0xFFF
            if one.type == _LOAD and one.executable and first <= offset < one.offset + one.file_size:
                return one.address - one.offset + offset
    raise ImageError(f"{path} maps no code at {offset:#x}")


@lru_cache(maxsize=64)
def sites_of(path: str, device: int, inode: int, changed_ns: int) -> tuple[Site, ...]:  # noqa: ARG001 - they tell files apart
    """Every `syscall` instruction of a file; ImageError when it is no ELF file that is understood."""
    with Elf.open(path) as elf:
        if elf.machine != _MACHINE_X86_64:
            raise ImageError(f"{path} is not for x86-64")
        code = _code(elf)
        if _SYSCALL not in code.data:
            return ()
        spans = list(_spans(elf))
        caves = _Caves(code, spans, go=elf.is_go)
        return tuple(site for span in _with_calls(code, spans) for site in _in_function(code, span, caves))


class _Code(NamedTuple):
    address: int
    data: bytes

    def at(self, address: int, size: int) -> bytes:
        return self.data[address - self.address : address - self.address + size]


def _code(elf: Elf) -> _Code:
    segment = next((one for one in elf.segments if one.type == _LOAD and one.executable), None)
    if segment is None:
        raise ImageError(f"{elf.name} has no code")
    return _Code(segment.address, bytes(elf.image[segment.offset : segment.offset + segment.file_size]))


def _spans(elf: Elf) -> Iterator[tuple[int, int]]:
    """First and past-the-last address of each function, ascending."""
    if elf.is_go:
        yield from GoFunctions(elf).spans()
        return
    hint = next((one for one in elf.segments if one.type == _UNWIND), None)
    if hint is not None:
        yield from _by_table(elf, hint)
        return
    section = elf.section(".eh_frame")  # static programs have no table of it
    if section is None:
        raise ImageError(f"{elf.name} does not say where its functions are (.eh_frame)")
    yield from sorted(_by_records(elf.contents(section), section.address))


def _by_table(elf: Elf, hint: Segment) -> Iterator[tuple[int, int]]:
    """From .eh_frame_hdr: a sorted table of where each function begins and where it is described (LSB core, 10.6)."""
    image = elf.image
    if image[hint.offset : hint.offset + 4] != _RELATIVE_TABLE:
        raise ImageError(f"{elf.name}: its table of functions is of a layout that is not known")
    count = _HINT.unpack_from(image, hint.offset)[5]
    if not 0 < count <= _FDE_MOST or 12 + count * 8 > hint.file_size:
        raise ImageError(f"{elf.name}: its table of functions is damaged")
    table = image[hint.offset + 12 : hint.offset + 12 + count * 8]
    for start, entry in struct.iter_unpack("<ii", table):
        begin = hint.address + start
        described, size = struct.unpack_from("<iI", image, elf.file_offset(hint.address + entry) + 8)
        if hint.address + entry + 8 + described == begin:  # else its pointers are of another kind: not understood
            yield begin, begin + size


def _by_records(data: bytes, address: int) -> Iterator[tuple[int, int]]:
    """From .eh_frame itself, those with pointers of 4 bytes relative to themselves, as all that is for x86-64 has."""
    at = 0
    understood: set[int] = set()
    while at + 16 <= len(data):
        size, kind = struct.unpack_from("<II", data, at)
        if size in (0, 0xFFFFFFFF):
            return
        if kind == 0:
            if data[at + 9 : at + 12] == b"zR\0" and data[at + 16] == _RELATIVE_TABLE[1]:
                understood.add(at)
        elif at + 4 - kind in understood:
            described, length = struct.unpack_from("<iI", data, at + 8)
            begin = address + at + 8 + described
            yield begin, begin + length
        at += size + 4


def _with_calls(code: _Code, spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The functions that hold the bytes of a `syscall` instruction, whatever they are there."""
    starts = [begin for begin, _ in spans]
    at, last = code.data.find(_SYSCALL), -1
    while at >= 0:
        index = bisect.bisect_right(starts, code.address + at) - 1
        if index >= 0 and index != last and code.address + at < spans[index][1]:
            last = index
            yield spans[index]
        at = code.data.find(_SYSCALL, at + 1)


def _in_function(code: _Code, span: tuple[int, int], caves: _Caves) -> list[Site]:
    begin, end = span[0] - code.address, min(span[1] - code.address, len(code.data))
    before: list[tuple[int, int]] = []
    found = []
    try:
        for at, size in x86.instructions(code.data, begin, end):
            if code.data[at : at + size] == _SYSCALL:
                loads = code.address + before[-1][0] if before and _loads_number(code.data, *before[-1]) else 0
                cave = 0 if loads else caves.near(code.address + at)
                padding = code.at(cave, CAVE) if cave else b""
                found.append(Site(code.address + at, _number(code.data, before), loads, cave, padding))
            before.append((at, size))
    except x86.Undecodable:
        pass  # what was found before it is certain; behind it nothing is
    return found


def _loads_number(data: bytes, at: int, size: int) -> bool:
    return size == _MOV_EAX_SIZE and data[at] == _MOV_EAX


def _number(data: bytes, before: list[tuple[int, int]]) -> int:
    """The number that is in eax at a `syscall` instruction: the last one loaded before it, if only harmless ones follow."""
    for at, size in reversed(before[-_LOOK_BACK:]):
        if _loads_number(data, at, size):
            return int.from_bytes(data[at + 1 : at + 5], "little")
        text = data[at : at + size]
        if text in (b"\x31\xc0", b"\x33\xc0"):  # xor %eax, %eax
            return 0
        if text[:3] == b"\x48\xc7\xc0":  # mov $number, %rax
            return int.from_bytes(text[3:7], "little")
        if not _leaves_eax(text):
            return ANY
    return ANY


def _leaves_eax(text: bytes) -> bool:
    """Whether an instruction certainly neither writes eax nor jumps: a move, lea or xor into another register."""
    extended = 0
    if 0x40 <= text[0] <= 0x4F:  # noqa: PLR2004 - REX
        extended, text = text[0], text[1:]
    opcode = text[0]
    if opcode in (0x89, 0x31) and text[1] >> 6 == 3:  # noqa: PLR2004 - the register in rm is written
        return bool(text[1] & 7 or extended & 1)
    if opcode in (0x8B, 0x8D, 0x33):  # the register in reg is written
        return bool(text[1] >> 3 & 7 or extended & 4)
    if 0xB9 <= opcode <= 0xBF or (opcode == 0xB8 and extended & 1):  # noqa: PLR2004 - mov $imm to another register
        return True
    return opcode == 0xC7 and text[1] >> 6 == 3 and bool(text[1] & 7 or extended & 1)  # noqa: PLR2004


class _Caves:
    """Padding between functions, each given away once."""

    def __init__(self, code: _Code, spans: list[tuple[int, int]], *, go: bool) -> None:
        self._code, self._spans, self._go = code, spans, go
        self._starts = [begin for begin, _ in spans]
        self._taken: set[int] = set()

    def near(self, site: int) -> int:
        """The address of `CAVE` bytes of padding that a short jump at the site reaches; 0 for none."""
        index = bisect.bisect_right(self._starts, site) - 1
        for one in (index, index - 1, index + 1, index + 2):
            gap = self._gap(one) if 0 <= one < len(self._spans) else None
            if gap is None or gap[0] == site + 2:  # what follows a `syscall` directly is not certainly never reached
                continue
            for at in range(gap[0], gap[1] - CAVE + 1):
                reached = _SHORT_LEAST <= at - (site + 2) <= _SHORT_MOST
                if reached and not self._taken & set(range(at - CAVE + 1, at + CAVE)):
                    self._taken.add(at)
                    return at
        return 0

    def _gap(self, index: int) -> tuple[int, int] | None:
        """The padding behind a function."""
        begin, end = self._spans[index]
        if self._go:  # a function's span reaches to the next one; its padding is the breakpoints at its end
            body = self._code.at(begin, end - begin).rstrip(b"\xcc")
            return begin + len(body), end
        following = self._starts[index + 1] if index + 1 < len(self._starts) else end
        padding = self._code.at(end, following - end)
        return (end, following) if following - end < 64 and _only_padding(padding) else None  # noqa: PLR2004


def _only_padding(data: bytes) -> bool:
    try:
        return all(_is_nop(data[at : at + size]) for at, size in x86.instructions(data, 0, len(data)))
    except x86.Undecodable:
        return False


def _is_nop(text: bytes) -> bool:
    bare = text.lstrip(b"\x66\x2e")
    return bare in (b"\x90", b"\xcc") or bare[:2] == b"\x0f\x1f"
