"""Holds memory: all at once or growing like a leak, resident, and never more than the machine can spare."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.kernel.memory import machine_memory
from squall.kernel.own import be_named
from squall.workers.lifeline import HELD_BACK, Lifeline, Refused, enter, run, sized

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Config", "check", "main"]

_BLOCK = 64 << 20
"""One mapping; few enough of them that 1 TiB stays below the kernel's limit of mappings."""
_STEP = 4 << 20
"""Between two looks at the life line and at what is available; a few milliseconds' work."""
_TICK_S = 0.05


class Config(NamedTuple):
    """Hold `amount_bytes`, reached at `rate_bytes_per_s` (None: at once); leave `spare_bytes` available on this machine."""

    amount_bytes: int
    spare_bytes: int
    rate_bytes_per_s: int | None = None
    cgroups: tuple[str, ...] = ()


def check(config: Config) -> None:
    """Raise Refused when the machine cannot give that much now and keep what it must."""
    there = machine_memory().available
    if there - config.amount_bytes < config.spare_bytes:
        raise Refused(
            f"{sized(config.amount_bytes)} cannot be taken: {sized(there)} are available on this machine, "
            f"and {sized(config.spare_bytes)} of it must stay so (`spare`)"
        )


def main() -> int:
    """Run as a worker."""
    return run(_work)


def _work(line: Lifeline, data: Mapping[str, Any]) -> None:
    config = Config(**data)
    check(config)
    be_named("squall-memory")
    enter(config.cgroups)
    hoard = _Hoard()
    line.ready()
    while True:
        config = _keep(line, hoard, config)


def _keep(line: Lifeline, hoard: _Hoard, config: Config) -> Config:
    """Hold what this configuration asks for until there is another one, which is returned."""
    began, base = time.monotonic(), min(hoard.held, config.amount_bytes)
    hoard.shrink(config.amount_bytes)
    while True:
        wanted = config.amount_bytes
        if config.rate_bytes_per_s is not None:
            wanted = min(wanted, base + int(config.rate_bytes_per_s * (time.monotonic() - began)))
        room = machine_memory().available - config.spare_bytes
        step = min(wanted - hoard.held, room, _STEP)
        if room < 0:  # others have taken what must stay available: give back
            hoard.shrink(hoard.held + room)
        elif step >= mmap.PAGESIZE:
            hoard.grow(step)
        held_back = room < _STEP and hoard.held < wanted - mmap.PAGESIZE
        be_named(HELD_BACK if held_back else "squall-memory")
        new = line.wait(0 if step == _STEP else _TICK_S)
        if new is not None:
            return Config(**new)


class _Hoard:
    """Private pages, each written with bytes that no page shares, so that the kernel can neither merge nor compress them."""

    def __init__(self) -> None:
        self._blocks: list[mmap.mmap] = []
        self._noise = os.urandom(2 << 20)
        self.held = 0
        """Bytes, whole pages."""

    def grow(self, step: int) -> None:
        """Take so many bytes more, down to a page; less when the system has no address space to give."""
        end = (self.held + step) // mmap.PAGESIZE * mmap.PAGESIZE
        while self.held < end:
            number, offset = divmod(self.held, _BLOCK)
            if number == len(self._blocks):
                try:
                    self._blocks.append(_block())
                except OSError:
                    return
            size = min(end - self.held, _BLOCK - offset, 1 << 20)
            start = self.held // mmap.PAGESIZE * 1009 % (1 << 20)
            self._blocks[number][offset : offset + size] = self._noise[start : start + size]
            self.held += size

    def shrink(self, most: int) -> None:
        """Give back what is held above so many bytes."""
        keep = max(0, most) // mmap.PAGESIZE * mmap.PAGESIZE
        if keep >= self.held:
            return
        number, offset = divmod(keep, _BLOCK)
        while len(self._blocks) > number + (offset > 0):
            self._blocks.pop().close()
        if offset:
            self._blocks[number].madvise(mmap.MADV_DONTNEED, offset)
        self.held = keep


def _block() -> mmap.mmap:
    block = mmap.mmap(-1, _BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        block.madvise(mmap.MADV_NOHUGEPAGE)  # so that a slow leak grows page by page
    return block
