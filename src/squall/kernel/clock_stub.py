"""The code that stands in for a process's clock functions: what its bytes are, where they lie, the data it reads.

Its source is `stubs/clock.S`, which says how it works. This module knows the layout; it stops nothing and overwrites
no function (`patching` does).
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Self

from squall.errors import CannotInject
from squall.kernel import proc, vdso
from squall.kernel.elf import Elf

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CLOCKS",
    "STOPPING_AT",
    "TRUE",
    "Found",
    "Skew",
    "StubMemory",
    "carriers",
    "entries",
    "image",
    "survey",
    "tai_ahead_ns",
    "token_of",
]

CLOCKS = {"realtime": 0, "realtime_coarse": 5, "realtime_alarm": 8, "tai": 11}
"""The wall clocks that can be skewed, by the kernel's numbers (clock_gettime(2))."""

STOPPING_AT = 25
"""The byte that is 1 while whoever patches has the process stopped."""
_MAGIC = b"SqClock1"
_TOKEN_AT, _TOKEN_SIZE = 8, 16
_SEQUENCE_AT, _SLOTS_AT, _CODE_AT = 24, 32, 128
_SLOT = struct.Struct("<qQqqqq")
_SYSTEM_CALL = b"\xb8\xe4\x00\x00\x00\x0f\x05\xc3"
"""mov eax, SYS_clock_gettime; syscall; ret"""
_PROLOGUE_MOST = 24
_ALIGNMENT = 64
_RATE_ONE = 1 << 48
_FUNCTION_MOST = 1024


class Skew(NamedTuple):
    """What a process's clocks say: the true time, plus `shift_ns`, plus `drift_ppm` of what has passed since `base_ns`.

    `base_ns` is on the true CLOCK_REALTIME; it all ends at `lease_ns` on CLOCK_MONOTONIC; `clocks` are their numbers.
    """

    lease_ns: int
    clocks: tuple[int, ...]
    shift_ns: int
    base_ns: int
    drift_ppm: float

    def packed(self) -> bytes:
        """As a slot holds it."""
        mask = sum(1 << clock for clock in self.clocks)
        rate = round(self.drift_ppm * _RATE_ONE / 1_000_000)
        return _SLOT.pack(self.lease_ns, mask, self.shift_ns, self.base_ns, self.base_ns + tai_ahead_ns(), rate)

    def ahead_ns(self, real_ns: int) -> int:
        """How far before the truth the clocks are at this true time."""
        return self.shift_ns + round(self.drift_ppm * (real_ns - self.base_ns) / 1_000_000)


TRUE = Skew(0, (), 0, 0, 0.0)
"""Clocks that are not skewed."""


def tai_ahead_ns() -> int:
    """How far CLOCK_TAI is before CLOCK_REALTIME: whole seconds, 0 where nobody has told the kernel."""
    ahead = time.clock_gettime_ns(time.CLOCK_TAI) - time.clock_gettime_ns(time.CLOCK_REALTIME)
    return round(ahead / 1e9) * 1_000_000_000


def token_of(name: str) -> bytes:
    """The 16 bytes by which a stub is known for this step's."""
    import hashlib

    return hashlib.blake2b(name.encode(), digest_size=_TOKEN_SIZE).digest()


@dataclass(frozen=True, slots=True)
class _Template:
    code: bytes
    at: dict[str, int]


@cache
def _template() -> _Template:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stubs", "clock.o")
    with open(path, "rb") as file:
        elf = Elf(file.read(), path)
    text = elf.section(".text")
    assert text is not None  # noqa: S101 - it is our own
    return _Template(elf.contents(text), {symbol.name: symbol.address for symbol in elf.symbols()})


@cache
def image(place: int) -> bytes:
    """The stub as it lies at this offset of this machine's vDSO: its data all zero, its way to the original filled in."""
    template, measure = _template(), vdso.own()
    entry, original = measure.entries["clock_gettime"], template.at["original"]
    moved = vdso.displaced(measure.image[entry : entry + _PROLOGUE_MOST])
    way = _SYSTEM_CALL
    if moved:
        way = measure.image[entry : entry + moved] + vdso.jump(place + original + moved, entry + moved)
    return _MAGIC + template.code[len(_MAGIC) : original] + way.ljust(len(template.code) - original, b"\x90")


def entries(place: int) -> list[tuple[int, bytes, bytes]]:
    """What leads the functions to a stub at this offset: for each its offset, its true first bytes, and those instead."""
    measure, template = vdso.own(), _template()
    return [
        (at, measure.image[at : at + vdso.ENTRY_SIZE], vdso.jump(at, place + template.at[name]))
        for name, at in measure.entries.items()
    ]


class Found(NamedTuple):
    """What a process's vDSO is like: the offset for a stub, whether that very stub is there, and is led to; whose it is."""

    place: int
    there: bool
    led_to: bool
    token: bytes
    lease_ns: int


def survey(theirs: bytes) -> Found:
    """Look at the image of a process; CannotInject when a stub cannot be put there or somebody else has patched it."""
    measure = vdso.own()
    if len(theirs) != len(measure.image) or theirs[:16] != measure.image[:16]:
        raise CannotInject("its vDSO is not this machine's 64-bit one: it is a 32-bit program, or runs in a sandbox")
    healed = bytearray(theirs[: measure.padding])
    for at, before, _ in entries(measure.padding):
        healed[at : at + vdso.ENTRY_SIZE] = before
        if vdso.jumps_into(measure.image[at : at + _FUNCTION_MOST]):
            raise CannotInject("a clock function of this kernel's vDSO jumps back to its own beginning")
    if healed != measure.image[: measure.padding]:
        raise CannotInject("somebody has patched its vDSO already")
    size = len(_template().code)
    places = range(measure.padding, len(theirs) - size + 1, _ALIGNMENT)
    stubs = [at for at in places if theirs.startswith(_MAGIC, at) and _same_code(theirs, at, size)]
    for place in stubs:
        ways = [(theirs[at : at + vdso.ENTRY_SIZE], before, after) for at, before, after in entries(place)]
        if all(now in (before, after) for now, before, after in ways):
            return _found(theirs, place, led_to=any(now == after for now, _, after in ways))
    if any(theirs[at : at + vdso.ENTRY_SIZE] != before for at, before, _ in entries(measure.padding)):
        raise CannotInject("somebody has patched its clock functions already")
    room = next((at for at in places if not any(theirs[at : at + size])), None)
    if room is None:
        raise CannotInject(
            f"its vDSO has no room for {size} bytes more: of the padding's {measure.spare} none are free"
        )
    return Found(room, there=False, led_to=False, token=b"", lease_ns=0)


def _same_code(theirs: bytes, place: int, size: int) -> bool:
    return theirs[place + _CODE_AT : place + size] == image(place)[_CODE_AT:]


def _found(theirs: bytes, place: int, *, led_to: bool) -> Found:
    slot = theirs[place + _SEQUENCE_AT] & 1
    lease, *_ = _SLOT.unpack_from(theirs, place + _SLOTS_AT + slot * _SLOT.size)
    token = theirs[place + _TOKEN_AT : place + _TOKEN_AT + _TOKEN_SIZE]
    return Found(place, there=True, led_to=led_to, token=token, lease_ns=lease)


class StubMemory:
    """The data of a stub in a process, through a descriptor of its memory: that of the very program, gone after an exec."""

    def __init__(self, pid: int, address: int, *, writable: bool = True) -> None:
        """OSError where the memory may not be opened or the process is gone."""
        self._fd = os.open(f"/proc/{pid}/mem", (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        self.address = address

    def close(self) -> None:
        """Let go of the memory."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def token(self) -> bytes:
        """Whose stub it is; empty when there is none (any more)."""
        with contextlib.suppress(OSError):
            head = os.pread(self._fd, _TOKEN_AT + _TOKEN_SIZE, self.address)
            if head.startswith(_MAGIC) and len(head) == _TOKEN_AT + _TOKEN_SIZE:
                return head[_TOKEN_AT:]
        return b""

    def claim(self, token: bytes) -> None:
        """Make it this step's, with true clocks."""
        self.become(TRUE)
        os.pwrite(self._fd, token, self.address + _TOKEN_AT)

    def become(self, skew: Skew) -> bool:
        """Change what the clocks say, for every reader at once; False when the program is gone.

        For one writer at a time. The sequence is a byte, so that it is written in one: a reader that is stopped between
        its two looks for exactly 256 changes (51 s of renewals) could see two of them mixed, were they different.
        """
        with contextlib.suppress(OSError):
            sequence = os.pread(self._fd, 1, self.address + _SEQUENCE_AT)
            if sequence:
                follows = (sequence[0] + 1) & 0xFF
                os.pwrite(self._fd, skew.packed(), self.address + _SLOTS_AT + (follows & 1) * _SLOT.size)
                return os.pwrite(self._fd, bytes([follows]), self.address + _SEQUENCE_AT) == 1
        return False


def carriers(address: int, token: bytes, executable: tuple[int, int]) -> Iterator[int]:
    """The pids of all processes with this step's stub at this address: its target, and what was forked from it.

    Only processes of this program (device and inode; (0, 0) for any) are looked into: a look into one that is just
    being started waits until it is.
    """
    for pid in proc.pids():
        if executable in ((0, 0), proc.executable(pid)):
            with contextlib.suppress(OSError), StubMemory(pid, address, writable=False) as memory:
                if memory.token() == token:
                    yield pid
