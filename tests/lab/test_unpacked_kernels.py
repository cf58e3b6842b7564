"""Kernels are found where their packages were unpacked, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from squall.errors import InputError
from squall.lab import Kernel

if TYPE_CHECKING:
    from pathlib import Path


def unpack(root: Path, release: str, *, merged: bool, image: bool = True) -> None:
    """What dpkg -x and depmod leave: 7.x has the image beside the modules, older ones have it in /boot."""
    modules = root / ("usr/lib" if merged else "lib") / "modules" / release
    modules.mkdir(parents=True)
    (modules / "modules.dep").touch()
    place = modules / "vmlinuz" if merged else root / "boot" / f"vmlinuz-{release}"
    if image:
        place.parent.mkdir(exist_ok=True)
        place.touch()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    for name, release, merged in (("newest", "10.3.1-x", True), ("5.10", "5.10.0-46", False), ("6.1", "6.1.9", False)):
        unpack(folder / name / "root", release, merged=merged)
        (folder / name / "done").touch()
    unpack(folder / "6.12" / "root", "6.12.1", merged=True)  # not done: somebody is unpacking it
    monkeypatch.setenv("SQUALL_KERNELS", str(folder))
    return folder


def test_all_in_the_cache_oldest_first(cache: Path) -> None:
    assert [(kernel.name, kernel.release) for kernel in Kernel.cached()] == [
        ("5.10", "5.10.0-46"), ("6.1", "6.1.9"), ("newest", "10.3.1-x"),
    ]  # fmt: skip
    assert Kernel.find("newest").image == cache / "newest" / "root" / "usr/lib/modules/10.3.1-x/vmlinuz"


def test_by_the_path_of_a_tree(tmp_path: Path) -> None:
    unpack(tmp_path, "6.6.6", merged=False)
    kernel = Kernel.find(str(tmp_path))
    assert (kernel.name, kernel.release, kernel.version) == ("6.6.6", "6.6.6", (6, 6))
    assert kernel.image == tmp_path / "boot" / "vmlinuz-6.6.6"


@pytest.mark.usefixtures("cache")
def test_one_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"no kernel '4\.19'.*known: 5\.10, 6\.1, newest.*tools/debian-kernels"):
        Kernel.find("4.19")


@pytest.mark.parametrize("image", [True, False])
def test_a_tree_must_hold_one_whole_kernel(tmp_path: Path, *, image: bool) -> None:
    for release in ("6.1.1", "6.1.2") if image else ("6.1.1",):
        unpack(tmp_path, release, merged=True, image=image)
    with pytest.raises(InputError, match="holds 6.1.1, 6.1.2" if image else "holds no vmlinuz"):
        Kernel.find(str(tmp_path))


def test_an_empty_cache_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUALL_KERNELS", str(tmp_path / "nothing"))
    assert Kernel.cached() == []
