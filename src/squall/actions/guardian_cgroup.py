"""The guardian's own cgroup: a service stop or a pod's end takes the whole cgroup of the engine."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from squall.actions.base import Action, Look
from squall.kernel import cgroups

if TYPE_CHECKING:
    from squall.targets.identity import ProcessIdentity

__all__ = ["GuardianCgroup", "place_for_guardian"]

_EMPTY_S = 1.0
"""A guardian that was just killed keeps its cgroup busy until it is gone."""


def place_for_guardian(run: str) -> str | None:
    """Where the guardian of this run may have a cgroup of its own, None where it needs or may have none.

    It needs one when this process is in a cgroup below the root of the unified hierarchy (a service, a session, a pod);
    it may have one when the root of that hierarchy, as seen from here, can be written to.
    """
    for tree in cgroups.hierarchies():
        if tree.v2 and cgroups.of_process().get("", "/") not in ("/", tree.root) and os.access(tree.mount, os.W_OK):
            return str(Path(tree.mount) / f"squall-guardian-{run}")
    return None


@dataclass(frozen=True)
class GuardianCgroup(Action, kind="guardian-cgroup", recoverability="guarded"):
    """Make a cgroup beside all others and move the guardian into it; undone by moving it to the root, then removing it."""

    folder: str
    guardian: ProcessIdentity

    def do(self) -> tuple[int, ...]:  # noqa: D102 - as the base says
        Path(self.folder).mkdir()
        (Path(self.folder) / "cgroup.procs").write_text(str(self.guardian.pid))
        return ()

    def undo(self) -> None:  # noqa: D102
        folder = Path(self.folder)
        deadline = time.monotonic() + _EMPTY_S
        while folder.is_dir():
            try:
                for pid in (folder / "cgroup.procs").read_text().split():
                    with contextlib.suppress(OSError):
                        (folder.parent / "cgroup.procs").write_text(pid)
                folder.rmdir()
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.002)

    def verify(self) -> Look:  # noqa: D102
        there = Path(self.folder).is_dir()
        return Look(normal=not there, detail="it is still there" if there else "it is gone")

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (f"cgroup:{self.folder}",)

    def describe(self) -> str:  # noqa: D102
        return f"give the guardian a cgroup of its own, {self.folder}"

    def describe_undo(self) -> str:  # noqa: D102
        return f"rmdir {self.folder}"
