"""Faults on what a process does with files: calls that fail, calls that take long, data that is read wrong."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from squall.faults.base import Fault
from squall.faults.errnos import Errno
from squall.faults.frozen import Rows
from squall.units import Duration, Ratio, Within

__all__ = ["Call", "Corrupt", "Delay", "Error", "OnFiles"]

Call = Literal["open", "read", "write", "sync", "stat", "truncate", "unlink", "rename", "mkdir"]
"""What is done with a file, whichever system call does it: `sync` is fsync, fdatasync, syncfs and sync_file_range."""

Path = Annotated[str, Field(pattern=r"^/[^\x00]*$", max_length=255)]


class OnFiles(Fault):
    """Which calls are hit: all conditions that are given must hold."""

    paths: Annotated[Rows[Path], Field(max_length=8)] = ()
    """Only these files, as absolute paths: a file, a folder with all below it, or a pattern with `*` for any characters."""
    percent: Annotated[Ratio, Within("0.001%", "100%")] = Ratio.parse("100%")
    """The share of matching calls that are hit, drawn for each from the experiment's seed."""
    times: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """At most so many calls are hit, then no more."""
    descendants: bool = False
    """Also the processes that descend from the target, those that it forks later too."""


class _OnCalls(OnFiles):
    calls: Annotated[Rows[Call], Field(min_length=1, max_length=9)]
    """What the process does: `open`, `read`, `write`, `sync`, `stat`, `truncate`, `unlink`, `rename`, `mkdir`."""


class Error(_OnCalls, type="io.error", targets=("process", "cgroup")):
    """Calls on files fail, as with a broken disk or a full one: a write that fails has written nothing.

    `read`, `write`, `sync` and `truncate` are hit on regular files and block devices only, never on sockets and pipes.
    """

    errno: Errno
    """The error that the process sees: EIO, ENOSPC, EMFILE, EROFS, EDQUOT, ..."""


class Delay(_OnCalls, type="io.delay", targets=("process", "cgroup")):
    """Calls on files take longer, as with a slow disk; only the calling thread waits. What they do is done after the wait."""

    delay: Annotated[Duration, Within("1us", "10m")]
    """How much longer."""
    jitter: Annotated[Duration, Within("0s", "10m")] = Duration(0)
    """The delay is drawn evenly from delay - jitter to delay + jitter, never below zero."""


class Corrupt(OnFiles, type="io.corrupt", targets=("process", "cgroup")):
    """What is read from files is wrong in one bit of each read that is hit, as from a disk that lies; the files stay as they are.

    The process may well store what it read: that is its doing, and it is not taken back. `paths` are needed.
    """

    paths: Annotated[Rows[Path], Field(min_length=1, max_length=8)]
    """Only these files, as absolute paths: a file, a folder with all below it, or a pattern with `*` for any characters."""
