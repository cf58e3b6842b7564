"""A process that may open no more files."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from squall.actions.base import Action, Look
from squall.errors import TargetError
from squall.kernel import proc

if TYPE_CHECKING:
    from squall.targets.identity import ProcessIdentity

__all__ = ["FileLimit"]

_NOFILE = resource.RLIMIT_NOFILE


@dataclass(frozen=True)
class FileLimit(Action, kind="file-limit", recoverability="guarded"):
    """Lower a process's soft RLIMIT_NOFILE, by prlimit(2), so that only `leave` more descriptors can be opened.

    A new descriptor gets the lowest free number, and the limit is one above the highest number allowed: the limit is
    set where `leave` free numbers lie below it. What is open above it stays open. Undone by compare-and-swap: only a
    limit that is still ours is put back, in the process and in the children it started meanwhile, which inherit it.
    """

    process: ProcessIdentity
    name: str
    leave: int
    soft: int = -1
    """The new limit; prepared."""
    before: int = -1
    """The old soft limit; prepared."""
    since_ticks: int = -1
    """When that was read, in clock ticks since boot: children started from then on may have inherited the new one."""

    def prepare(self) -> FileLimit:  # noqa: D102 - as the base says
        if not self.process.same_program():
            raise TargetError(
                f"{self.name} (pid {self.process.pid}) has ended, or become another program, since it was selected"
            )
        try:
            taken = proc.open_descriptors(self.process.pid)
            before, hard = resource.prlimit(self.process.pid, _NOFILE)
        except (PermissionError, ProcessLookupError) as error:
            raise TargetError(
                f"the file limit of {self.name} (pid {self.process.pid}) may not be changed: {error.strerror}"
            ) from error
        soft = _limit_that_leaves(taken, self.leave)
        if soft >= before:
            raise TargetError(
                f"{self.name} may open {before - len(taken)} more files anyway: leaving {self.leave} would change nothing"
            )
        return replace(self, soft=min(soft, hard), before=before, since_ticks=proc.ticks_now())

    def do(self) -> tuple[int, ...]:  # noqa: D102
        if not _swap(self.process.pid, self.process.start_ticks, self.before, self.soft):
            raise TargetError(
                f"the file limit of {self.name} (pid {self.process.pid}) has changed since it was read, or it has ended"
            )
        return ()

    def undo(self) -> None:  # noqa: D102
        if self.soft < 0 or not self.process.same_process():
            return
        _swap(self.process.pid, self.process.start_ticks, self.soft, self.before)  # first: later children inherit this
        for pid, start_ticks in self._children():
            _swap(pid, start_ticks, self.soft, self.before)

    def _children(self) -> list[tuple[int, int]]:
        """Pid and start time of the processes below it that began while the limit may have been low."""
        stats = [proc.read_stat(pid) for pid in proc.descendants(self.process.pid)]
        return [
            (stat.pid, stat.start_ticks) for stat in stats if stat is not None and stat.start_ticks >= self.since_ticks
        ]

    def verify(self) -> Look:  # noqa: D102
        if not self.process.same_process():
            return Look(normal=True, detail="the process has ended")
        try:
            soft, _ = resource.prlimit(self.process.pid, _NOFILE)
        except ProcessLookupError:
            return Look(normal=True, detail="the process has ended")
        return Look(normal=soft != self.soft or self.soft == self.before, detail=f"its limit is {soft} files")

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (f"{self.process.key}:nofile",)

    def describe(self) -> str:  # noqa: D102
        return f"lower the file limit of {self.name} (pid {self.process.pid}) from {self.before} to {self.soft}"

    def describe_undo(self) -> str:  # noqa: D102
        return f"prlimit --pid {self.process.pid} --nofile={self.before}:"


def _swap(pid: int, start_ticks: int, expected: int, new: int) -> bool:
    """Set the limit if it is the expected one and the process still itself; whether it was set."""
    fd = proc.open_process(pid, start_ticks)  # while it is open, a successor with this pid would be seen
    if fd is None:
        return False
    try:
        soft, hard = resource.prlimit(pid, _NOFILE)
        stat = proc.read_stat(pid)
        if soft != expected or stat is None or stat.start_ticks != start_ticks:
            return False
        resource.prlimit(pid, _NOFILE, (min(new, hard), hard))
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def _limit_that_leaves(taken: list[int], leave: int) -> int:
    """The largest limit below which exactly `leave` numbers are free."""
    used, limit, free = set(taken), 0, 0
    while True:
        if limit not in used:
            if free == leave:
                return limit
            free += 1
        limit += 1
