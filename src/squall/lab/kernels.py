"""Unpacked kernels: an image and its modules, in a folder that nobody installed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from squall.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Kernel", "cache_folder"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that can be booted."""

    name: str
    """What a person calls it: its folder's name in the cache, else its release."""
    release: str
    """What `uname -r` says in it."""
    image: Path
    modules: Path
    """The folder that holds modules.dep, named by the release."""

    @classmethod
    def find(cls, text: str) -> Kernel:
        """The kernel meant by a name in the cache (`6.1`), or by the path of a tree that packages were unpacked into.

        Raises:
            InputError: there is none, it has no modules.dep, or the tree holds more than one.
        """
        given = Path(text)
        named = "/" not in text and not given.is_dir()
        root = cache_folder() / text / "root" if named else given
        if not root.is_dir():
            where = f"in {cache_folder()}" if named else "there"
            there = ", ".join(kernel.name for kernel in cls.cached()) or "none"
            raise InputError(f"there is no kernel {text!r} {where} (known: {there}); to have it: tools/debian-kernels")
        found = list(_in_tree(root.resolve(), text if named else ""))
        if len(found) != 1:
            what = ", ".join(kernel.release for kernel in found) or "no vmlinuz with a modules.dep of its release"
            raise InputError(f"{root} must hold one unpacked kernel, and holds {what}")
        return found[0]

    @classmethod
    def cached(cls) -> list[Kernel]:
        """Every kernel that tools/debian-kernels put into this checkout's cache, oldest first."""
        folder = cache_folder()
        trees = [path for path in folder.iterdir() if (path / "done").is_file()] if folder.is_dir() else []
        found = [kernel for tree in trees for kernel in _in_tree((tree / "root").resolve(), tree.name)]
        return sorted(found, key=lambda kernel: kernel.version)

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor number."""
        major, minor, *_ = self.release.split(".")
        return int(major), int(minor.split("-")[0])


def cache_folder() -> Path:
    """Where unpacked kernels are looked for: $SQUALL_KERNELS, else .cache/debian/kernels of the folder squall runs in."""
    return Path(os.environ.get("SQUALL_KERNELS") or Path(".cache") / "debian" / "kernels")


def _in_tree(root: Path, name: str) -> Iterator[Kernel]:
    for modules in sorted([*root.glob("lib/modules/*/modules.dep"), *root.glob("usr/lib/modules/*/modules.dep")]):
        folder = modules.parent
        for image in (folder / "vmlinuz", root / "boot" / f"vmlinuz-{folder.name}"):
            if image.is_file():
                yield Kernel(name or folder.name, folder.name, image, folder)
                break
