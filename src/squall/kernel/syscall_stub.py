"""The code that Squall puts into a process to decide on its system calls, and the memory it works with.

One *region* lies within reach of the program's code: the stub (native/syscall_stub.*), a small *piece* for each site that
leads to it, a control block shared with forked children, and slots in which calls are looked at. Pure but for reading.
"""

from __future__ import annotations

import functools
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.errors import CannotInject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "BASE_SIZE",
    "CONTROL",
    "CONTROL_SIZE",
    "MARK",
    "PIECES_MOST",
    "PIECE_SIZE",
    "REGION_SIZE",
    "SLOTS",
    "SLOTS_SIZE",
    "Counts",
    "Rule",
    "control_block",
    "piece",
    "piece_address",
    "pieces",
    "rule_update",
    "source_hash",
    "stub",
]

_PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "objects", "syscall_stub.bin")
MARK = b"squall-syscalls\0"
_HASH_SIZE = 64
_ENTRY = 0x80

BASE_SIZE = CONTROL = 0x10000
_PIECES = 0x2000
PIECE_SIZE = 80
_PIECE_ENDS = 67
"""Without what it replaces; padding follows."""
PIECES_MOST = (CONTROL - _PIECES) // PIECE_SIZE
CONTROL_SIZE = 0x3000
SLOTS = CONTROL + CONTROL_SIZE
_SLOT_SIZE = 0x4000
SLOTS_SIZE = 64 * _SLOT_SIZE
REGION_SIZE = SLOTS + SLOTS_SIZE

_HEAD = struct.Struct("<10Q")
UNTIL, _ACTIVE, _COUNTS = 0, 16, 56
_PATHS_MOST, _PATH_SIZE = 8, 256
_NUMBERS_MOST = 1024
_RULE_SIZE = 8 * (16 + 7) + _PATHS_MOST * _PATH_SIZE
_FILES, _CHILDREN, _SPOIL = 1, 2, 4


@functools.cache
def stub() -> bytes:
    """The built code, header and all; CannotInject when this installation lacks it."""
    try:
        with open(_PATH, "rb") as file:
            code = file.read()
    except FileNotFoundError:
        raise CannotInject(f"the installation is damaged: {_PATH} is not there") from None
    assert code.startswith(MARK) and len(code) <= _PIECES  # noqa: S101, PT018 - as tools/build-native made it
    return code


def source_hash() -> str:
    """SHA-256 (hex) of the sources that the stub was built from."""
    return stub()[len(MARK) : len(MARK) + _HASH_SIZE].decode()


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of which calls.

    `numbers` are system call numbers; `error` an errno, 0 for none; a delay is drawn evenly from delay - jitter to
    delay + jitter (ns); `share` is 0 to 1; `times` the most hits, 0 for no end. `files`: only regular files and block
    devices, and calls that name a path; `paths` (absolute, 8 at most, shorter than 256 bytes): a file or folder with
    all below it, or a pattern with `*`. `children`: processes that are forked later too. `spoil`: change a bit of what
    was read.
    """

    numbers: tuple[int, ...]
    error: int = 0
    delay_ns: int = 0
    jitter_ns: int = 0
    share: float = 1.0
    times: int = 0
    files: bool = False
    children: bool = False
    spoil: bool = False
    paths: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rule:
        """Read back what `dataclasses.asdict` gave."""
        return cls(**{**data, "numbers": tuple(data["numbers"]), "paths": tuple(data["paths"])})

    def packed(self) -> bytes:
        """As the stub reads it."""
        bits = 0
        for number in self.numbers:
            assert 0 <= number < _NUMBERS_MOST  # noqa: S101 - numbers come from a table
            bits |= 1 << number
        least = max(0, self.delay_ns - self.jitter_ns)
        flags = self.files * _FILES | self.children * _CHILDREN | self.spoil * _SPOIL
        paths = [os.fsencode(path) for path in self.paths]
        assert len(paths) <= _PATHS_MOST and all(len(path) < _PATH_SIZE for path in paths)  # noqa: S101, PT018 - the fault's limits
        return (
            bits.to_bytes(128, "little")
            + struct.pack("<7Q", self.error, least, (self.delay_ns + self.jitter_ns - least) // 2, round(self.share * (1 << 32)),
                          self.times, flags, len(paths))
            + b"".join(path.ljust(_PATH_SIZE, b"\0") for path in paths)
        ).ljust(_RULE_SIZE, b"\0")  # fmt: skip


class Counts(NamedTuple):
    """How often calls fitted the rule, how many of them were hit, and how many could not be looked at."""

    calls: int
    hits: int
    crowded: int

    @classmethod
    def read(cls, control: bytes) -> Counts:
        """From the beginning of a control block."""
        return cls(*_HEAD.unpack_from(control)[7:10])


def control_block(rule: Rule, process: int, seed: int) -> bytes:
    """A whole new control block, its lease not begun."""
    head = _HEAD.pack(0, process, 0, 1, seed & (1 << 64) - 1, 0, 0, 0, 0, 0)
    return (head + rule.packed()).ljust(_HEAD.size + 2 * _RULE_SIZE, b"\0")


def rule_update(control: bytes, rule: Rule) -> Sequence[tuple[int, bytes]]:
    """The writes (offset, bytes), in this order, by which a control block that is in use takes a new rule.

    The rule that is not in use is written first, then one word makes it the one that is.
    """
    _, _, active, generation, *_ = _HEAD.unpack_from(control)
    other = 1 - (active & 1)
    return (
        (_HEAD.size + other * _RULE_SIZE, rule.packed()),
        (48, bytes(8)),  # hits of this rule
        (_ACTIVE, struct.pack("<2Q", other, generation + 1)),
    )


def piece_address(base: int, index: int) -> int:
    """Where the piece of the n-th site of a region is."""
    return base + _PIECES + index * PIECE_SIZE


def piece(base: int, at: int, back: int, load: bytes) -> bytes:
    """The code of one site: what its patch replaced (`load`), a claim of a slot, the way into the stub, and the call itself.

    Only rcx, r11 and the flags are used until the stub has put all else away: the instruction clobbers them anyway.
    """
    slots, end, crowded = base + SLOTS, base + SLOTS + SLOTS_SIZE, base + CONTROL + _COUNTS + 16
    code = bytearray(load)

    def relative(opcode: bytes, target: int) -> None:
        code.extend(opcode + struct.pack("<i", target - (at + len(code) + len(opcode) + 4)))

    relative(b"\x4c\x8d\x1d", slots)  # lea slots(%rip), %r11
    again = len(code)
    code += b"\xb9\x01\x00\x00\x00\x41\x87\x0b\x85\xc9"  # mov $1, %ecx; xchg %ecx, (%r11); test %ecx, %ecx
    code += b"\x74\x00"  # jz claimed
    found = len(code)
    code += b"\x49\x81\xc3" + struct.pack("<i", _SLOT_SIZE)  # add $size, %r11
    relative(b"\x48\x8d\x0d", end)  # lea end(%rip), %rcx
    code += b"\x49\x39\xcb\x75" + struct.pack("<b", again - (len(code) + 5))  # cmp %rcx, %r11; jne again
    relative(b"\xf0\x48\xff\x05", crowded)  # lock incq crowded(%rip)
    code += b"\xeb\x0c"  # jmp over the next two instructions
    code[found - 1] = len(code) - found
    real = len(code) + 12
    relative(b"\x48\x8d\x0d", at + real)  # claimed: lea real(%rip), %rcx
    relative(b"\xe9", base + _ENTRY)
    assert len(code) == real  # noqa: S101 - the jump above counts on it
    code += b"\x0f\x05"
    relative(b"\xe9", back)
    assert len(code) == _PIECE_ENDS + len(load)  # noqa: S101 - counted by hand
    return bytes(code.ljust(PIECE_SIZE, b"\xcc"))


def pieces(base: int, area: bytes) -> dict[tuple[int, bytes], int]:
    """The pieces that a region holds, from the memory behind its stub: (back, load) -> number."""
    found = {}
    for index in range(len(area) // PIECE_SIZE):
        at = piece_address(base, index)
        code = area[index * PIECE_SIZE : (index + 1) * PIECE_SIZE]
        if not any(code):
            break
        load = code[:5] if code[0] == 0xB8 else b""  # noqa: PLR2004 - mov $number, %eax
        end = _PIECE_ENDS + len(load)
        back = at + end + struct.unpack_from("<i", code, end - 4)[0]
        if piece(base, at, back, load) == code:
            found[back, load] = index
    return found
