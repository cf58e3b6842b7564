"""Control groups, v1, v2 and hybrid: which there are, which a process is in, what limits they set."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "Hierarchy",
    "below",
    "cpu_quota",
    "folders_of",
    "hierarchies",
    "memory_limit",
    "of_process",
    "own_cgroups",
    "processes_below",
]

_DEEP_MOST, _GROUPS_MOST = 24, 100_000
"""Groups further below, or more of them, are not looked at: no machine has them."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup tree: its mount point, the part of the tree it shows, its controllers (empty: v2)."""

    mount: str
    root: str
    controllers: tuple[str, ...]

    @property
    def v2(self) -> bool:
        """Whether it is the unified hierarchy."""
        return not self.controllers

    def folder(self, path: str) -> Path | None:
        """Where a cgroup of this tree is seen, None when the mount does not show it."""
        if path != self.root and not path.startswith(self.root.rstrip("/") + "/"):
            return None
        return Path(self.mount) / path[len(self.root.rstrip("/")) :].lstrip("/")


@cache
def hierarchies() -> tuple[Hierarchy, ...]:
    """Every cgroup tree that is mounted here, from /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        fields = left.split()
        if kind == "cgroup2":
            found.append(Hierarchy(fields[4], fields[3], ()))
        elif kind == "cgroup":
            known = ("rw", "ro", "xattr", "clone_children", "noprefix")
            names = tuple(o for o in options.split(",") if o not in known and not o.startswith("release_agent"))
            found.append(Hierarchy(fields[4], fields[3], names))
    return tuple(found)


def of_process(pid: int | str = "self") -> dict[str, str]:
    """Path by hierarchy as /proc/PID/cgroup has it: {"": "/a.slice", "memory": "/a"}; empty for a pid that is gone."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return {}
    split = (line.split(":", 2) for line in lines)
    return {names: path for _, names, path in split}


def folders_of(pid: int | str = "self") -> dict[str, str]:
    """Every cgroup folder that a process is in and that can be seen from here, by hierarchy; empty for a pid that is gone."""
    found = {}
    for names, path in of_process(pid).items():
        wanted = tuple(names.split(",")) if names else ()
        for tree in hierarchies():
            folder = tree.folder(path) if tree.controllers == wanted else None
            if folder is not None and folder.is_dir():
                found[names] = str(folder)
    return found


def own_cgroups(pid: int) -> tuple[str, ...]:
    """The cgroup folders that a process has of its own: neither the root nor those that this process is in as well."""
    mine, roots = folders_of(), {tree.mount for tree in hierarchies()}
    return tuple(
        folder for names, folder in folders_of(pid).items() if folder not in roots and folder != mine.get(names)
    )


def below(folder: str) -> Iterator[str]:
    """This cgroup folder and every one below it, each before what is in it; what ends meanwhile is left out."""
    left, seen = [(folder, 0)], 0
    while left and seen < _GROUPS_MOST:
        here, deep = left.pop()
        seen += 1
        yield here
        if deep < _DEEP_MOST:
            with contextlib.suppress(OSError), os.scandir(here) as entries:
                left += [(entry.path, deep + 1) for entry in entries if entry.is_dir(follow_symlinks=False)]


def processes_below(folders: Iterable[str]) -> list[int]:
    """The pids in these cgroup folders and in all below them, ascending; 0, one of another pid namespace, is left out."""
    found: set[int] = set()
    for group in (group for folder in folders for group in below(folder)):
        with contextlib.suppress(OSError), open(f"{group}/cgroup.procs") as file:
            found.update(int(line) for line in file)
    return sorted(found - {0})


def cpu_quota(folders: Iterable[str]) -> float | None:
    """How many cores these cgroups, or those above them, may use at most; None for no quota."""
    quotas = []
    for folder in folders:
        for place in (Path(folder), *Path(folder).parents):
            if not (place / "cgroup.procs").is_file():
                break
            quota = _quota(place)
            if quota is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _quota(folder: Path) -> float | None:
    """Of one cgroup: cpu.max is "QUOTA PERIOD" in v2, v1 has a file for each; both in microseconds."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except OSError:
        try:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    return int(quota) / int(period) if quota.isdecimal() else None  # "max" and -1 are no quota


def memory_limit(folders: Iterable[str]) -> int | None:
    """The smallest memory limit in bytes that these cgroups, or those above them, set; None for no limit."""
    limits = []
    for folder in folders:
        for place in (Path(folder), *Path(folder).parents):
            if not (place / "cgroup.procs").is_file():
                break
            limits += [limit for name in _LIMITS if (limit := _limit(place / name)) is not None]
    return min(limits, default=None)


_LIMITS = ("memory.max", "memory.limit_in_bytes")
_NO_LIMIT = 1 << 60
"""v1 writes "no limit" as almost 2**63."""


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() and int(text) < _NO_LIMIT else None
