"""Exchanges the first bytes of functions in a running process, at a moment in which no thread is among them.

The process is stopped; a thread that stands among the bytes, or will return there from a signal's handler, is a reason
to let it go on and try again. Each place is compared before it is written: what is another's stays.
"""

from __future__ import annotations

import contextlib
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from squall.errors import ActionFailed
from squall.kernel import process_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Exchange", "exchange"]

_MARGIN = 8
"""No thread may stand this close behind the first of the bytes; at the very first one may: it has executed none."""
_ATTEMPTS = 200
_PAUSE_S = 0.001
_STACK_MOST = 64 * 1024
"""So much above a thread's stack pointer is searched for the frame of an interrupted signal handler."""
_WORD = 8


class Exchange(NamedTuple):
    """At this address these bytes for those."""

    address: int
    expected: bytes
    new: bytes


def exchange(pid: int, start_ticks: int, wanted: Sequence[Exchange], *, mark: int, whole: bool) -> int:
    """Write what is not yet written, where the expected bytes are; how many places were changed.

    `whole`: all of them or, with ActionFailed, none; otherwise what is neither expected nor new is left alone. `mark` is
    the address of a byte of Squall's own in the process, 1 while it is stopped for this: whoever finds it so knows who
    stopped it. ProcessLookupError when the process is gone, ActionFailed when no good moment came.
    """
    with contextlib.suppress(PermissionError):  # reading is enough to see that nothing is to be done
        if not _due(pid, wanted, whole=whole):
            return 0
    for _ in range(_ATTEMPTS):
        with _marked(pid, mark), process_memory.stopped(pid, start_ticks) as threads:
            if not _any_among(pid, threads, wanted):
                due = _due(pid, wanted, whole=whole)
                for one in due:
                    process_memory.write(pid, one.address, one.new)
                return len(due)
        time.sleep(_PAUSE_S)
    raise ActionFailed(f"process {pid} was never seen outside the bytes to exchange in {_ATTEMPTS} stops")


def _due(pid: int, wanted: Sequence[Exchange], *, whole: bool) -> list[Exchange]:
    due = []
    for one in wanted:
        now = process_memory.read(pid, one.address, len(one.expected))
        if now == one.expected:
            due.append(one)
        elif whole and now != one.new:
            raise ActionFailed(f"the code of process {pid} at {one.address:#x} has been changed by somebody else")
    return due


@contextmanager
def _marked(pid: int, mark: int) -> Iterator[None]:
    process_memory.write(pid, mark, b"\x01")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it may have been ended while it was stopped
            process_memory.write(pid, mark, b"\x00")


def _any_among(pid: int, threads: Sequence[process_memory.StoppedThread], wanted: Sequence[Exchange]) -> bool:
    """Whether a thread is among the bytes, or comes back there when the handler of a signal returns."""
    windows = [range(one.address + 1, one.address + max(_MARGIN, len(one.new))) for one in wanted]
    if any(thread.pc in window for thread in threads for window in windows):
        return True
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return any(_on_stack(fd, thread.sp, windows) for thread in threads if thread.sp)
    finally:
        os.close(fd)


def _on_stack(fd: int, sp: int, windows: Sequence[range]) -> bool:
    """Whether a word above the stack pointer could be the saved place of an instruction among the bytes."""
    try:
        stack = os.pread(fd, _STACK_MOST, sp)
    except OSError:
        return False
    for high in {window.start >> 16 for window in windows} | {window.stop >> 16 for window in windows}:
        pattern = high.to_bytes(_WORD - 2, "little")
        at = stack.find(pattern)
        while at >= 0:
            word = int.from_bytes(stack[at - 2 : at + _WORD - 2], "little") if at >= 2 else 0  # noqa: PLR2004
            if any(word in window for window in windows):
                return True
            at = stack.find(pattern, at + 1)
    return False
