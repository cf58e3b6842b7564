"""The programs that a guest is made of: QEMU, virtiofsd and busybox, of the machine or of the cache."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from squall.errors import CannotInject

__all__ = ["Programs"]

CACHED = Path(".cache") / "debian" / "lab" / "root"
"""Where `tools/debian-cache lab` unpacks them, in the folder squall runs in; $SQUALL_LAB names another."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where they are, and what they need to run from there."""

    qemu: str
    virtiofsd: str
    busybox: str
    firmware: tuple[str, ...] = ()
    """Folders where QEMU finds its firmware; none: where it was installed."""
    libraries: tuple[str, ...] = ()
    """Folders with the shared libraries of QEMU and virtiofsd; none: the machine's own."""

    @classmethod
    def find(cls) -> Programs:
        """The machine's own programs where it has all of them, else those of the cache.

        Raises:
            CannotInject: one is missing, or this user cannot export the root folder.
        """
        if os.uname().machine != "x86_64":
            raise CannotInject(f"guests are x86-64 only so far, and this machine is {os.uname().machine}")
        if os.geteuid() != 0:
            raise CannotInject("virtiofsd, which gives a guest this machine's files, needs root: sudo squall kernels")
        cached = Path(os.environ.get("SQUALL_LAB") or CACHED).resolve()
        missing: list[str] = []
        for root in (Path("/"), cached):
            places = {
                "qemu-system-x86_64": _first(root, "qemu-system-x86_64", "usr/bin"),
                "virtiofsd": _first(root, "virtiofsd", "usr/lib/qemu"),
                "busybox": _first(root, "busybox", "bin", "usr/bin"),
            }
            if all(places.values()):
                return cls._of(root, *(str(place) for place in places.values()))
            missing = missing or [name for name, place in places.items() if not place]
        raise CannotInject(
            f"{', '.join(missing)} missing; to have them: tools/debian-cache lab, "
            "or apt-get install --no-install-recommends qemu-system-x86 qemu-system-common busybox-static kmod"
        )

    @classmethod
    def _of(cls, root: Path, qemu: str, virtiofsd: str, busybox: str) -> Programs:
        if root == Path("/"):
            return cls(qemu, virtiofsd, busybox)
        firmware = [root / "usr" / "share" / name for name in ("qemu", "seabios")]
        folders = {path.parent for base in ("lib", "usr/lib") for path in (root / base).glob("**/*.so*")}
        return cls(qemu, virtiofsd, busybox, tuple(map(str, firmware)), tuple(sorted(map(str, folders))))

    def environment(self) -> dict[str, str]:
        """What QEMU and virtiofsd run with."""
        bare = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "LC_ALL"}}
        return {**bare, "LD_LIBRARY_PATH": os.pathsep.join(self.libraries)} if self.libraries else bare


def _first(root: Path, name: str, *folders: str) -> Path | None:
    """A program in the first of some folders of a tree, or anywhere on PATH where the tree is the machine's own."""
    for folder in folders:
        if os.access(root / folder / name, os.X_OK):
            return root / folder / name
    found = shutil.which(name) if root == Path("/") else None
    return Path(found) if found else None
