"""Processes as /proc shows them, and pidfds that cannot be mistaken for a successor."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from functools import cache
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ProcessStat",
    "ancestors",
    "boot_id",
    "carriers",
    "children_of",
    "command_line",
    "descendants",
    "environment_value",
    "executable",
    "innermost_pid",
    "listening_inodes",
    "listening_ports",
    "nameless_bytes",
    "open_descriptors",
    "open_files",
    "open_process",
    "pids",
    "process_of",
    "read_stat",
    "seccomp_mode",
    "send_signal",
    "socket_inodes",
    "ticks_now",
    "wait_gone",
]

PROC = Path("/proc")
_KERNEL_THREAD = 0x0020_0000
"""PF_KTHREAD of include/linux/sched.h."""
_TCP_LISTEN = "0A"


@cache
def boot_id() -> str:
    """This boot's id: a pid of another boot is another process."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def ticks_now() -> int:
    """Now in clock ticks since boot, the unit of `start_ticks`; a process started later has at least this."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


class ProcessStat(NamedTuple):
    """The fields of /proc/PID/stat that Squall uses (proc_pid_stat(5)); times in clock ticks."""

    pid: int
    comm: str
    state: str
    ppid: int
    kernel_thread: bool
    utime: int
    stime: int
    threads: int
    start_ticks: int
    rss_pages: int

    @property
    def gone(self) -> bool:
        """Whether it has ended (a zombie has: only its parent has not looked yet)."""
        return self.state in "ZXx"

    @property
    def stopped(self) -> bool:
        """Whether a signal has stopped it."""
        return self.state == "T"


def read_stat(pid: int) -> ProcessStat | None:
    """The process's state, or None when there is no such pid.

    A process lives on when only its first thread has ended: then the state of one of the others is its state.
    """
    stat = _stat_of(f"/proc/{pid}/stat")
    if stat is None or stat.state not in "ZXx" or stat.threads < 2:  # noqa: PLR2004 - itself and one that may live
        return stat
    with contextlib.suppress(OSError):
        for thread in _numbers(PROC / str(pid) / "task"):
            other = _stat_of(f"/proc/{pid}/task/{thread}/stat")
            if other is not None and other.state not in "ZXx":
                return stat._replace(state=other.state)
    return stat


def _stat_of(path: str) -> ProcessStat | None:
    try:
        with open(path, errors="replace") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    pid = int(text[: text.index(" ")])
    comm, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
    # rest[0] is field 3 of proc_pid_stat(5)
    return ProcessStat(
        pid=pid, comm=comm, state=rest[0], ppid=int(rest[1]), kernel_thread=bool(int(rest[6]) & _KERNEL_THREAD),
        utime=int(rest[11]), stime=int(rest[12]), threads=int(rest[17]), start_ticks=int(rest[19]), rss_pages=int(rest[21]),
    )  # fmt: skip


def pids() -> list[int]:
    """Every pid that this process can see, ascending."""
    return _numbers(PROC)


def carriers(name: str, value: str) -> list[int]:
    """The pids of all processes that were started with this variable, other users' left out where they may not be seen."""
    wanted, found = f"{name}={value}".encode(), []
    for pid in pids():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            raw = file.read()
            if wanted in raw and wanted in raw.split(b"\0"):
                found.append(pid)
    return found


def _numbers(folder: Path) -> list[int]:
    return sorted(int(name) for name in os.listdir(folder) if name.isdecimal())


def command_line(pid: int) -> list[str]:
    """argv, empty for a kernel thread, a zombie or a pid that is gone."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.rstrip(b"\0").split(b"\0")] if raw else []


def executable(pid: int) -> tuple[int, int]:
    """Device and inode of the program that runs, (0, 0) where it may not be seen."""
    try:
        info = (PROC / str(pid) / "exe").stat()
    except OSError:
        return (0, 0)
    return (info.st_dev, info.st_ino)


def environment_value(pid: int, name: str) -> str | None:
    """One variable of the environment that a process was started with, None where there is none or it may not be seen."""
    try:
        raw = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    prefix = name.encode() + b"="
    return next(
        (item[len(prefix) :].decode(errors="replace") for item in raw.split(b"\0") if item.startswith(prefix)), None
    )


def open_descriptors(pid: int) -> list[int]:
    """The numbers of a process's open descriptors; PermissionError where they may not be seen."""
    return _numbers(PROC / str(pid) / "fd")


def open_files(pid: int) -> list[str]:
    """What a process's open descriptors lead to, as far as it may be seen: "/memfd:name (deleted)", "socket:[17]"."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for number in open_descriptors(pid):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


def process_of(thread: int) -> int | None:
    """The pid of the process that a thread's number belongs to (a process's own number is its first thread's)."""
    try:
        rows = (PROC / str(thread) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((int(row[5:]) for row in rows if row.startswith("Tgid:")), None)


def innermost_pid(pid: int) -> int:
    """What a process calls itself: its pid in the innermost namespace that it is in; its pid here where that is not told."""
    words = _status(pid, "NSpid:")
    return int(words[-1]) if words else pid


def seccomp_mode(pid: int) -> int:
    """Whether seccomp confines a process: 0 no, 1 strictly, 2 by a filter; 0 where that is not told."""
    words = _status(pid, "Seccomp:")
    return int(words[0]) if words else 0


def _status(pid: int, key: str) -> list[str]:
    """The words behind a key of /proc/PID/status, none where there is no such line."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", errors="replace") as file:
        for line in file:
            if line.startswith(key):
                return line.split()[1:]
    return []


def nameless_bytes(pid: int) -> int:
    """The disk space of open files that have no name any more; 0 where a process's files may not be seen."""
    found = 0
    with contextlib.suppress(OSError):
        for number in open_descriptors(pid):
            with contextlib.suppress(OSError):
                info = (PROC / str(pid) / "fd" / str(number)).stat()
                if S_ISREG(info.st_mode) and info.st_nlink == 0:
                    found += info.st_blocks * 512
    return found


def children_of(pid: int) -> list[int]:
    """The processes whose parent is this one."""
    return [stat.pid for stat in _all_stats() if stat.ppid == pid]


def descendants(pid: int) -> list[int]:
    """All processes that descend from this one, parents before children, without itself."""
    by_parent: dict[int, list[int]] = {}
    for stat in _all_stats():
        by_parent.setdefault(stat.ppid, []).append(stat.pid)
    found, queue = [], [pid]
    while queue:
        for child in by_parent.get(queue.pop(0), []):
            found.append(child)
            queue.append(child)
    return found


def ancestors(pid: int) -> list[int]:
    """Its parent, grandparent and so on, up to pid 1."""
    found: list[int] = []
    stat = read_stat(pid)
    while stat is not None and stat.ppid > 0 and stat.ppid not in found:
        found.append(stat.ppid)
        stat = read_stat(stat.ppid)
    return found


def _all_stats() -> Iterator[ProcessStat]:
    for pid in pids():
        stat = read_stat(pid)
        if stat is not None:
            yield stat


def listening_inodes(port: int) -> set[int]:
    """The socket inodes that listen on a TCP port in this network namespace, IPv4 and IPv6."""
    return {inode for listening, inode in _listening() if listening == port}


def listening_ports(pid: int) -> list[int]:
    """The TCP ports of this network namespace on which a process listens, ascending; empty where that may not be seen."""
    inodes = socket_inodes(pid)
    return sorted({port for port, inode in _listening() if inode in inodes})


def _listening() -> Iterator[tuple[int, int]]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / "self/net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _TCP_LISTEN:
                    yield int(fields[1].rpartition(":")[2], 16), int(fields[9])


def socket_inodes(pid: int) -> set[int]:
    """The inodes of a process's sockets; empty where they may not be seen."""
    found = set()
    folder = PROC / str(pid) / "fd"
    with contextlib.suppress(OSError):
        for number in _numbers(folder):
            with contextlib.suppress(OSError):
                link = os.readlink(f"{folder}/{number}")
                if link.startswith("socket:["):
                    found.add(int(link[8:-1]))
    return found


def open_process(pid: int, start_ticks: int) -> int | None:
    """A pidfd of the process with this pid *and* start time, or None when it is gone or another has its pid.

    The descriptor is opened first and the start time read after, so the two cannot be of different processes.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):  # a thread's number, not a process's
            return None
        raise
    stat = read_stat(pid)
    if stat is None or stat.gone or stat.start_ticks != start_ticks:
        os.close(fd)
        return None
    return fd


def send_signal(pid: int, start_ticks: int, number: int) -> bool:
    """Send a signal to exactly this process; False when it is gone. PermissionError passes through."""
    fd = open_process(pid, start_ticks)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def wait_gone(pid: int, start_ticks: int, timeout_s: float) -> bool:
    """Wait until the process has ended (and reap it when it is a child of this one); False when it has not in time."""
    deadline = time.monotonic() + timeout_s
    fd = open_process(pid, start_ticks)
    if fd is not None:
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(max(0, deadline - time.monotonic()) * 1000)
        finally:
            os.close(fd)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    stat = read_stat(pid)
    return stat is None or stat.gone or stat.start_ticks != start_ticks
