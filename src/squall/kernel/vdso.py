"""The kernel's own little library in every process, the vDSO: where it is, its functions, its zero padding.

Every 64-bit process of a machine runs the same image, so this process's own is the measure of what another's should
look like: a difference before the padding is somebody's patch (vdso(7)).
"""

from __future__ import annotations

import mmap
import os
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from squall.errors import CannotInject
from squall.kernel import process_memory
from squall.kernel.elf import Elf, ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ENTRY_SIZE", "FUNCTIONS", "Vdso", "displaced", "jump", "jumps_into", "located", "own"]

FUNCTIONS = ("clock_gettime", "gettimeofday", "time")
"""What reads the wall clock, each exported as `__vdso_NAME` (and under its plain name)."""
ENTRY_SIZE = 5
"""The bytes of a `jmp rel32`."""
_ENDBR64 = b"\xf3\x0f\x1e\xfa"
_IMAGE_MOST = 16 * mmap.PAGESIZE
_ALIGNMENT = 64

_MOVABLE = re.compile(
    rb"""
    \x41?[\x50-\x57]                        # push r64
    | [\x41\x44\x45\x48\x49\x4c\x4d]?       # any of the next with a REX prefix
      (?: [\x89\x8b\x31\x33\x85\x63][\xc0-\xff]   # mov, xor, test, movsxd between registers
        | \x83[\xc0-\xff].                  # and, sub, cmp ... of a register and a byte
        | \x81[\xc0-\xff].{4}               # ... and four bytes
        | \x8d[\x44\x4c\x54\x5c\x64\x6c\x74\x7c]\x24.   # lea of something on the stack
      )
    | \x41?[\xb8-\xbf].{4}                  # mov r32, four bytes
    | \x66?\x90                             # nop
    | \x0f\x1f (?: \x00 | \x40. | \x44\x00. | \x80.{4} )  # longer ones
    """,
    re.VERBOSE | re.DOTALL,
)
"""Instructions that do the same wherever they lie: no jump, no call, nothing that is found from their own address."""
_SHORT_JUMP = re.compile(rb"(?=[\x70-\x7f\xe0-\xe3\xeb](.))", re.DOTALL)
_TWO_BYTES = 0x0F
_NEAR_JUMP = re.compile(rb"(?=(?:\x0f[\x80-\x8f]|\xe9|\xe8)(.{4}))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Vdso:
    """An image: its bytes, where each of `FUNCTIONS` that it has can be overwritten, and where its padding begins.

    Positions are offsets in the image, which is mapped as one piece. `entries` are behind an `endbr64`, which stays.
    """

    image: bytes
    entries: Mapping[str, int]
    padding: int

    @classmethod
    def parse(cls, image: bytes) -> Vdso:
        """Read an image; CannotInject with the reason when it has no clock functions or is not of 64 bits."""
        try:
            elf = Elf(image, "the vDSO")
        except ImageError as error:
            raise CannotInject(f"its vDSO cannot be read (a 32-bit program has another): {error}") from error
        entries = {}
        for name in FUNCTIONS:
            symbol = elf.symbol(f"__vdso_{name}")
            if symbol is not None:
                at = symbol.address
                entries[name] = at + len(_ENDBR64) if image.startswith(_ENDBR64, at) else at
        if "clock_gettime" not in entries:
            raise CannotInject("its vDSO has no clock_gettime")
        used = max(
            [len(image.rstrip(b"\0"))]
            + [one.offset + one.size for one in elf.sections if one.type != 8 and one.size]  # noqa: PLR2004 - SHT_NOBITS
            + [one.offset + one.file_size for one in elf.segments]
        )
        table = (
            int.from_bytes(image[40:48], "little") + len(elf.sections) * 64
        )  # the last section's header may end in zeros
        return cls(image, entries, -(-max(used, table) // _ALIGNMENT) * _ALIGNMENT)

    @property
    def spare(self) -> int:
        """The size of the padding in bytes."""
        return max(0, len(self.image) - self.padding)


def located(pid: int) -> tuple[int, int]:
    """Address and size of a process's vDSO; CannotInject when it has none that is usable."""
    for row in process_memory.mappings(pid):
        if row.name == "[vdso]":
            if row.end - row.start > _IMAGE_MOST:
                raise CannotInject(f"its vDSO is larger ({row.end - row.start} bytes) than any that is known")
            return row.start, row.end - row.start
    raise CannotInject("it has no vDSO: it reads its clocks by system calls, which are not covered")


@cache
def own() -> Vdso:
    """This process's image, the measure; CannotInject when this process has none or somebody has patched it."""
    pid = os.getpid()
    address, size = located(pid)
    found = Vdso.parse(process_memory.read(pid, address, size))
    if any(found.image[found.padding :]):
        raise CannotInject("Squall's own vDSO was patched by somebody: there is no measure for that of others")
    return found


def jump(at: int, to: int) -> bytes:
    """A `jmp rel32` at one offset to another."""
    return b"\xe9" + (to - at - ENTRY_SIZE).to_bytes(4, "little", signed=True)


def displaced(code: bytes) -> int:
    """How many bytes of this function's beginning can run elsewhere, whole instructions and at least a jump's; 0: unknown."""
    end = 0
    while end < ENTRY_SIZE:
        match = _MOVABLE.match(code, end)
        if match is None:
            return 0
        end = match.end()
    return end


def jumps_into(code: bytes) -> bool:
    """Whether something in a function may jump back among its first bytes, its very first left out: then they must stay.

    Every byte is taken for a jump's first: it may see one where there is none, never the other way round.
    """
    forbidden = range(1, ENTRY_SIZE)
    short = ((match.start() + 2, match[1]) for match in _SHORT_JUMP.finditer(code))
    near = (
        (match.start() + (6 if code[match.start()] == _TWO_BYTES else 5), match[1])
        for match in _NEAR_JUMP.finditer(code)
    )
    return any(
        after + int.from_bytes(distance, "little", signed=True) in forbidden for after, distance in (*short, *near)
    )
