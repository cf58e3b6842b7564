"""A control group of this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from squall.errors import TargetError
from squall.kernel import cgroups

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CgroupTarget", "cgroup_of_folders", "find_cgroup"]


@dataclass(frozen=True, slots=True)
class CgroupTarget:
    """A cgroup, told apart by its folders' device and inode (for v2 the inode is the cgroup id); v1 has one a controller.

    A container is a cgroup with a name: what works on cgroups works on it.
    """

    kind: ClassVar[str] = "cgroup"
    path: str
    folders: tuple[str, ...]
    identities: tuple[tuple[int, int], ...]
    container: str = ""
    """For a container its name and the beginning of its id: "shop (4f797c539e6c)"."""

    @property
    def key(self) -> str:
        """One word for it."""
        return f"cgroup:{self.path}:{self.identities[0][1]}"

    @property
    def label(self) -> str:
        """For people."""
        return f"container {self.container}" if self.container else f"cgroup {self.path}"

    @property
    def unified(self) -> str | None:
        """Its folder in cgroup v2; None where it is one of v1 alone."""
        mounts = [tree.mount.rstrip("/") for tree in cgroups.hierarchies() if tree.v2]
        return next((f for f in self.folders if any(f.startswith(f"{mount}/") for mount in mounts)), None)

    def alive(self) -> bool:
        """Whether the same group is still there."""
        return all(
            _identity(folder) == identity for folder, identity in zip(self.folders, self.identities, strict=True)
        )

    def processes(self) -> list[int]:
        """The pids that are in it and in the groups below it now, ascending."""
        return cgroups.processes_below(self.folders)

    def to_json(self) -> dict[str, Any]:
        """As events and reports hold it."""
        return {"kind": self.kind, "label": self.label, "path": self.path, "folders": list(self.folders)}


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        info = Path(folder).stat()
    except OSError:
        return None
    return (info.st_dev, info.st_ino)


def find_cgroup(path: str) -> CgroupTarget:
    """The cgroup of this path, absolute ("/sys/fs/cgroup/app") or below the mounts ("app"); TargetError for none or a root."""
    trees = cgroups.hierarchies()
    if not trees:
        raise TargetError("there is no cgroup file system on this machine")
    clean = os.path.normpath(path)
    mount = next(
        (t for t in sorted(trees, key=lambda t: -len(t.mount)) if (clean + "/").startswith(t.mount.rstrip("/") + "/")),
        None,
    )
    if mount is not None:
        name, places = os.path.relpath(clean, mount.mount), [mount]
    elif clean.startswith("/sys/fs/cgroup/"):
        raise TargetError(f"{path} is in no mounted cgroup hierarchy; there are {', '.join(t.mount for t in trees)}")
    else:
        name, places = clean.lstrip("/"), list(trees)
    if name in ("", "."):
        raise TargetError(f"{path} is a root cgroup: everything on the machine is in it; name a group below it")
    if name.split("/")[0] == "..":
        raise TargetError(f"{path} leads out of the cgroup file system")
    found = [str(Path(tree.mount) / name) for tree in places if (Path(tree.mount) / name / "cgroup.procs").is_file()]
    if not found:
        raise TargetError(f"there is no cgroup {path}; looked below {', '.join(t.mount for t in places)}")
    return cgroup_of_folders("/" + name, found)


def cgroup_of_folders(path: str, folders: Sequence[str], container: str = "") -> CgroupTarget:
    """The cgroup that these folders show; one that has just gone is left out, TargetError when all have."""
    seen = {folder: identity for folder in folders if (identity := _identity(folder)) is not None}
    if not seen:
        raise TargetError(f"{f'the container {container}' if container else f'the cgroup {path}'} has just ended")
    return CgroupTarget(path, tuple(seen), tuple(seen.values()), container)
