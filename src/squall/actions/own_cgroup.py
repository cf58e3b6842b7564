"""A cgroup for one process alone, so that what is attached to it meets nobody else."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from squall.actions.base import Action, Look
from squall.errors import CannotInject, TargetError
from squall.kernel import cgroups, proc
from squall.targets.identity import ProcessIdentity  # noqa: TC001 - a field of the dataclass, read when it is decoded

__all__ = ["OWN_PREFIX", "OwnCgroup", "unified_cgroup"]

OWN_PREFIX = "squall-own-"
"""Every group made here is called so; a group of this name never is a process's home."""
_EMPTY_S = 2.0
"""A process that was just killed keeps its group busy until it is gone."""
_ROUNDS = 8
"""Descendants may fork while they are moved."""


def unified_cgroup(pid: int) -> str | None:
    """The folder of the cgroup v2 that a process is in, as seen from here; None on a machine without, or when it is gone."""
    return cgroups.folders_of(pid).get("")


@dataclass(frozen=True)
class OwnCgroup(Action, kind="own-cgroup", recoverability="guarded"):
    """Make a v2 cgroup below the one that a process is in and move the process there; what it forks then follows it.

    Several may be nested, one for each fault; whichever ends last takes the process home. `name` is unique to the step
    ("RUN-FAULT.PID"). `prepare` fills in `home` and `folder`.
    """

    process: ProcessIdentity
    label: str
    name: str
    descendants: bool = False
    """Whether the processes that are below it already are moved as well."""
    home: str = field(default="", compare=False)
    """Where they were, and go back to. What `prepare` finds is no part of what was asked: an adjusted fault keeps it."""
    folder: str = field(default="", compare=False)
    """The group that is made: below the present one, which is `home` or another of this kind."""

    def prepare(self) -> OwnCgroup:  # noqa: D102 - as the base says
        here = unified_cgroup(self.process.pid) if self.process.same_process() else None
        if not self.process.same_process():
            raise TargetError(f"{self.label} has ended since it was selected")
        if here is None:
            raise CannotInject(
                f"{self.label} is in no cgroup v2 that can be seen from here: it cannot have one of its own"
            )
        if _line(here, "cgroup.type") not in ("", "domain"):
            raise CannotInject(f"{here} is a threaded cgroup: no group for a process alone can be made in it")
        home = Path(here)
        while home.name.startswith(OWN_PREFIX):
            home = home.parent
        if not os.access(here, os.W_OK) or not os.access(home / "cgroup.procs", os.W_OK):
            raise CannotInject(f"this user may make no cgroup below {here}: run as root")
        return replace(self, home=str(home), folder=str(Path(here) / f"{OWN_PREFIX}{self.name}"))

    def do(self) -> tuple[int, ...]:  # noqa: D102
        Path(self.folder).mkdir()
        if not self.process.same_process():
            raise TargetError(f"{self.label} ended before it could be moved")
        _move(self.process.pid, self.folder)
        if not self.process.same_process():  # its pid was another's by then: that one goes back at once
            self.undo()
            raise TargetError(f"{self.label} ended while it was moved")
        for _ in range(_ROUNDS if self.descendants else 0):
            inside = set(_pids(self.folder))
            left = [pid for pid in proc.descendants(self.process.pid) if pid not in inside]
            if not left:
                break
            for pid in left:
                if unified_cgroup(pid) in (self.home, os.path.dirname(self.folder)):
                    _move(pid, self.folder)
        return ()

    def undo(self) -> None:  # noqa: D102
        if not self.folder:
            return
        deadline = time.monotonic() + _EMPTY_S
        while os.path.isdir(self.folder):
            for pid in _pids(self.folder):
                _move(pid, self.home)
            if _nested(self.folder):
                return  # another fault still needs its own group in this one, and removes both
            try:
                Path(self.folder).rmdir()
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
        _remove_empty(Path(self.folder).parent)

    def verify(self) -> Look:  # noqa: D102
        if not self.folder or not os.path.isdir(self.folder):
            return Look(normal=True, detail="the group is gone")
        inside, nested = _pids(self.folder), _nested(self.folder)
        if nested and not inside:
            return Look(normal=True, detail=f"nothing is in it; {nested[0]} of another fault still is")
        return Look(normal=False, detail=f"{self.folder} is still there, with {len(inside)} processes")

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (f"cgroup:{OWN_PREFIX}{self.name}",)

    def describe(self) -> str:  # noqa: D102
        below = " and all below it" if self.descendants else ""
        return f"move {self.label}{below} into a cgroup of its own, {OWN_PREFIX}{self.name}"

    def describe_undo(self) -> str:  # noqa: D102
        if not self.folder:
            return "move it back and remove the cgroup"
        return f"move what is in {self.folder} to {self.home}, then rmdir {self.folder}"


def _move(pid: int, folder: str) -> None:
    """Move one process; one that has ended meanwhile is not missed."""
    with contextlib.suppress(ProcessLookupError):
        Path(folder, "cgroup.procs").write_text(str(pid))


def _pids(folder: str) -> list[int]:
    return [int(pid) for pid in _line(folder, "cgroup.procs").split() if pid != "0"]


def _line(folder: str, name: str) -> str:
    try:
        return Path(folder, name).read_text().strip()
    except OSError:
        return ""


def _nested(folder: str) -> list[str]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.name.startswith(OWN_PREFIX) and entry.is_dir()]
    return []


def _remove_empty(folder: Path) -> None:
    """Take away the groups of this kind that an earlier fault left to the last one."""
    while folder.name.startswith(OWN_PREFIX) and not _pids(str(folder)) and not _nested(str(folder)):
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
