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

PLACES = {
    "qemu-system-x86_64": ("usr/bin",),
    "virtiofsd": ("usr/lib/qemu",),
    "busybox": ("bin", "usr/bin"),
}


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
        """Each of the machine, else of the cache.

        Raises:
            CannotInject: one is missing, or this user cannot export the root folder.
        """
        if os.uname().machine != "x86_64":
            raise CannotInject(f"guests are x86-64 only so far, and this machine is {os.uname().machine}")
        if os.geteuid() != 0:
            raise CannotInject("virtiofsd, which gives a guest this machine's files, needs root: sudo squall kernels")
        cached = Path(os.environ.get("SQUALL_LAB") or CACHED).resolve()
        found = {name: _first(name, folders, cached) for name, folders in PLACES.items()}
        if missing := [name for name, place in found.items() if place is None]:
            raise CannotInject(
                f"{', '.join(missing)} missing; to have them: tools/debian-cache lab, "
                "or apt-get install --no-install-recommends qemu-system-x86 qemu-system-common busybox-static kmod"
            )
        qemu, virtiofsd, busybox = map(str, found.values())
        if not Path(qemu).is_relative_to(cached):
            return cls(qemu, virtiofsd, busybox)
        firmware = [cached / "usr" / "share" / name for name in ("qemu", "seabios")]
        libraries = {path.parent for base in ("lib", "usr/lib") for path in (cached / base).glob("**/*.so*")}
        return cls(qemu, virtiofsd, busybox, tuple(map(str, firmware)), tuple(sorted(map(str, libraries))))

    def environment(self) -> dict[str, str]:
        """What QEMU and virtiofsd run with."""
        bare = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "LC_ALL"}}
        return {**bare, "LD_LIBRARY_PATH": os.pathsep.join(self.libraries)} if self.libraries else bare


def _first(name: str, folders: tuple[str, ...], cached: Path) -> Path | None:
    """A program in its folders of the machine, then of the cache, or anywhere on PATH."""
    for root in (Path("/"), cached):
        for folder in folders:
            if os.access(root / folder / name, os.X_OK):
                return root / folder / name
    on_path = shutil.which(name)
    return Path(on_path) if on_path else None
