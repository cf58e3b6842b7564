"""Faults on single system calls, by their names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from squall.faults.base import Fault
from squall.faults.errnos import Errno
from squall.faults.frozen import Rows
from squall.units import Duration, Ratio, Within

__all__ = ["Call", "Delay", "Error", "OnSystemCalls"]

Call = Literal[
    "accept", "accept4", "access", "bind", "chmod", "clone", "clone3", "close", "connect", "copy_file_range",
    "creat", "dup", "dup3", "epoll_pwait", "epoll_wait", "execve", "faccessat", "faccessat2", "fallocate",
    "fchmod", "fdatasync", "flock", "fork", "fstat", "fstatfs", "fsync", "ftruncate", "getdents64",
    "getpeername", "getrandom", "getsockopt", "ioctl", "link", "linkat", "listen", "lseek", "lstat",
    "memfd_create", "mkdir", "mkdirat", "mmap", "msync", "nanosleep", "newfstatat", "open", "openat",
    "openat2", "pipe", "pipe2", "poll", "ppoll", "pread64", "preadv", "preadv2", "pselect6", "pwrite64",
    "pwritev", "pwritev2", "read", "readlink", "readlinkat", "readv", "recvfrom", "recvmmsg", "recvmsg",
    "rename", "renameat", "renameat2", "rmdir", "select", "sendfile", "sendmmsg", "sendmsg", "sendto",
    "setsockopt", "shutdown", "socket", "socketpair", "splice", "stat", "statfs", "statx", "symlink",
    "symlinkat", "sync_file_range", "syncfs", "truncate", "unlink", "unlinkat", "vfork", "write", "writev",
]  # fmt: skip
"""The system calls that can be chosen, by their names on x86-64."""


class OnSystemCalls(Fault):
    """Which calls are hit."""

    calls: Annotated[Rows[Call], Field(min_length=1, max_length=100)]
    """The system calls by name (connect, accept4, fsync, ...), whatever file or socket they are about."""
    percent: Annotated[Ratio, Within("0.001%", "100%")] = Ratio.parse("100%")
    """The share of these calls that are hit, drawn for each from the experiment's seed."""
    times: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """At most so many calls are hit, then no more."""
    descendants: bool = False
    """Also the processes that descend from the target, those that it forks later too."""


class Error(OnSystemCalls, type="syscall.error", targets=("process", "cgroup")):
    """The calls fail without being made; the process sees the error that was asked for."""

    errno: Errno
    """The error that the process sees: ECONNREFUSED, ETIMEDOUT, ENOMEM, EAGAIN, ..."""


class Delay(OnSystemCalls, type="syscall.delay", targets=("process", "cgroup")):
    """The calls are made later; only the calling thread waits."""

    delay: Annotated[Duration, Within("1us", "10m")]
    """How much later."""
    jitter: Annotated[Duration, Within("0s", "10m")] = Duration(0)
    """The delay is drawn evenly from delay - jitter to delay + jitter, never below zero."""
