"""The memory of another process, through /proc/PID/mem, and the moment in which none of its threads runs.

A write through /proc/PID/mem passes over the pages' protection: the process gets a copy of its own of a page that it
shares (proc_pid_mem(5)). Both need the right to trace the process (ptrace(2), "access mode PTRACE_MODE_ATTACH").
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from squall.errors import TargetError
from squall.kernel import proc

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Mapping", "StoppedThread", "mappings", "memory_refusal", "read", "stopped", "tracer", "write"]

_SETTLE_S = 2.0
"""A stop takes effect when each thread next returns to user space; one that is deep in a slow disk never does in time."""
_POLL_S = 0.0002
_STILL = "TtZXx"
"""The states of a thread that executes nothing: stopped, held by a debugger, ended."""


class Mapping(NamedTuple):
    """One line of /proc/PID/maps (proc_pid_maps(5)): [start, end) with its permissions and the file's path or "[name]"."""

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    name: str


class StoppedThread(NamedTuple):
    """Where a thread stands: the addresses of its next instruction and of the top of its stack; both 0 when it has ended."""

    tid: int
    pc: int
    sp: int


def mappings(pid: int) -> list[Mapping]:
    """What a process has mapped, by address; empty when it is gone. PermissionError where that may not be seen."""
    try:
        with open(f"/proc/{pid}/maps", errors="surrogateescape") as file:
            return [_mapping(line) for line in file]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _mapping(line: str) -> Mapping:
    fields = line.rstrip("\n").split(maxsplit=5)
    start, _, end = fields[0].partition("-")
    name = fields[5] if len(fields) > 5 else ""  # noqa: PLR2004 - the sixth is left out for nameless memory
    return Mapping(int(start, 16), int(end, 16), fields[1], int(fields[2], 16), fields[3], int(fields[4]), name)


def read(pid: int, address: int, size: int) -> bytes:
    """Exactly these bytes; OSError (EIO) where they are not all mapped, ProcessLookupError, PermissionError."""
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(fd, size, address)
    finally:
        os.close(fd)
    if len(data) != size:
        raise OSError(5, f"only {len(data)} of {size} bytes at {address:#x} of process {pid} could be read")
    return data


def write(pid: int, address: int, data: bytes) -> None:
    """Write over what is there, also where the process itself may not; raises as `read` does."""
    fd = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        written = os.pwrite(fd, data, address)
    finally:
        os.close(fd)
    if written != len(data):
        raise OSError(5, f"only {written} of {len(data)} bytes at {address:#x} of process {pid} could be written")


def memory_refusal(pid: int) -> str | None:
    """Why this user may not write a process's memory, None when he may or when it is gone; nothing is written."""
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return f"not permitted to write the memory of process {pid}: run as root (kernel.yama.ptrace_scope may also forbid it)"
    except OSError:
        return None
    return None


def tracer(pid: int) -> int:
    """The pid of the debugger that holds a process, 0 for none or when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", errors="replace") as file:
        for line in file:
            if line.startswith("TracerPid:"):
                return int(line.split()[1])
    return 0


@contextmanager
def stopped(pid: int, start_ticks: int | None = None) -> Iterator[list[StoppedThread]]:
    """No thread of the process runs inside the block, which is told where each of them stands.

    It is stopped by SIGSTOP and let go by SIGCONT however the block ends; one that stood still before is left so. A
    third party that sends SIGCONT meanwhile is not kept from it. ProcessLookupError when it has ended, or when it
    began at another time than `start_ticks`; TargetError when a debugger holds it or a thread does not stop within 2 s.
    """
    fd = os.pidfd_open(pid)
    try:
        stat = proc.read_stat(pid)
        if stat is None or stat.gone or start_ticks not in (None, stat.start_ticks):
            raise ProcessLookupError(3, f"process {pid} has ended")
        if debugger := tracer(pid):
            raise TargetError(f"process {pid} is held by a debugger (pid {debugger}): only that one may stop it")
        try:
            if not stat.stopped:
                signal.pidfd_send_signal(fd, signal.SIGSTOP)
            yield _standing(pid)
        finally:
            if not stat.stopped:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGCONT)
    finally:
        os.close(fd)


def _standing(pid: int) -> list[StoppedThread]:
    """Wait until every thread has stopped, those too that were started meanwhile; where each of them stands."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        tids = _threads(pid)
        where = [_where(pid, tid) for tid in tids]
        if tids and tids == _threads(pid) and None not in where:
            return [one for one in where if one is not None]
        if not tids:
            raise ProcessLookupError(3, f"process {pid} has ended")
        if time.monotonic() > deadline:
            late = tids[where.index(None)] if None in where else tids[0]
            raise TargetError(
                f"thread {late} of process {pid} did not stop within {_SETTLE_S:g} s: it is in the kernel"
            )
        time.sleep(_POLL_S)


def _threads(pid: int) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return []


def _where(pid: int, tid: int) -> StoppedThread | None:
    """Where a thread stands, None while it runs."""
    try:
        with open(f"/proc/{pid}/task/{tid}/stat", errors="replace") as file:
            state = file.read().rpartition(") ")[2][0]
        if state not in _STILL:
            return None
        if state in "ZXx":
            return StoppedThread(tid, 0, 0)
        with open(f"/proc/{pid}/task/{tid}/syscall") as file:
            fields = file.read().split()
    except (FileNotFoundError, ProcessLookupError):
        return StoppedThread(tid, 0, 0)
    if len(fields) < 3:  # noqa: PLR2004 - "running": it has the state already and is about to leave its CPU
        return None
    return StoppedThread(tid, int(fields[-1], 16), int(fields[-2], 16))
