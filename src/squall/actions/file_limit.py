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
    limit that is still ours is put back.
    """

    process: ProcessIdentity
    name: str
    leave: int
    soft: int = -1
    """The new limit; prepared."""
    before: int = -1
    """The old soft limit; prepared."""

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
        return replace(self, soft=min(soft, hard), before=before)

    def do(self) -> tuple[int, ...]:  # noqa: D102
        if not self._swap(self.before, self.soft):
            raise TargetError(
                f"the file limit of {self.name} (pid {self.process.pid}) has changed since it was read, or it has ended"
            )
        return ()

    def undo(self) -> None:  # noqa: D102
        if self.soft >= 0:
            self._swap(self.soft, self.before)

    def _swap(self, expected: int, new: int) -> bool:
        """Set the limit if it is the expected one and the process still itself; whether it was set."""
        fd = proc.open_process(
            self.process.pid, self.process.start_ticks
        )  # while it is open the pid cannot be reused unseen
        if fd is None:
            return False
        try:
            soft, hard = resource.prlimit(self.process.pid, _NOFILE)
            if soft != expected or not self.process.same_process():
                return False
            resource.prlimit(self.process.pid, _NOFILE, (min(new, hard), hard))
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True

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


def _limit_that_leaves(taken: list[int], leave: int) -> int:
    """The largest limit below which exactly `leave` numbers are free."""
    used, limit, free = set(taken), 0, 0
    while True:
        if limit not in used:
            if free == leave:
                return limit
            free += 1
        limit += 1
